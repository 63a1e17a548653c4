//! Which directories may become bricks, in the words that GlusterFS uses.
