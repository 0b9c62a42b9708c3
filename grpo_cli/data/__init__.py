"""Problems, the prompts made from them, and the order in which training visits them."""
