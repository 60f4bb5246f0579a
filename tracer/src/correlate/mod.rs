//! Correlation: from time-ordered events to journeys, the same packet across hops. Pure.
