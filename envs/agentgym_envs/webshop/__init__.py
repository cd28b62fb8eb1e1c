"""WebShop (Yao et al. 2022, arXiv:2207.01206): a web shop, implemented natively."""
