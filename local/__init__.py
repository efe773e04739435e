"""`make run`: Paceline on one machine, in processes that stand in for API Gateway, Lambda and its event source."""
