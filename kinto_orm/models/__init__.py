"""The models: buckets, groups, collections, records, accounts, and the managers that list and create them."""
