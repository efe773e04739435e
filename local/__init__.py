"""`make run`: Paceline on one machine, with processes in place of API Gateway, Lambda and its event source."""
