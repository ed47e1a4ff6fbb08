"""Our Triton backend. Triton runs a copy of these modules; this project never imports them."""
