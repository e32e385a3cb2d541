"""`ringback demo`: the whole way of 200 tasks on this machine, with everything going wrong that can go wrong."""
