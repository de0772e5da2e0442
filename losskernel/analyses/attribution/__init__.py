"""Which training samples made a query's loss what it is: influence, and its test by retraining."""
