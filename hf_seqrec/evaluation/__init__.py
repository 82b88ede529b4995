"""From ranks to results: protocols, candidates, ranking of users, records and tables."""
