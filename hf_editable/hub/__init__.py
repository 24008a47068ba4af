"""To the Hub and from it, and the cards that go there."""
