"""Real servers for the tests. What a developer may lack is skipped at home and fails in CI."""
