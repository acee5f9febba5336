package rules

// fact is one of our own functions, called in .cf files as eval:name(). It
// returns how often what it looks for is there. Patterns are for text; a fact
// compares what a pattern can't.
type fact func(m *message) int

// ownSymbols are names that the engine sets for metas.
var ownSymbols = []string{"__SL_OUTBOUND", "__SL_RELAY", "__SL_LOCAL"}

// facts are all of them by name. Names begin with sluice_, so that none is
// taken for one of SpamAssassin's.
var facts = map[string]fact{}
