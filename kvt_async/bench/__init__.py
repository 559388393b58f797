"""Load with a known shape against one server, its facts in the same store; analysis is the analyzer's."""
