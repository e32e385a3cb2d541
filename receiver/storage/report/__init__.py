"""The queries of a report of delivery. They read rows alone, and share nothing with the statements that write them."""
