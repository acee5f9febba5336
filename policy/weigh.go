package policy

import (
	"slices"
	"strings"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
)

// Symbols of what the lists of senders add to a sum.
const (
	SymbolAllowSender = "SL_ALLOW_SENDER"
	SymbolDenySender  = "SL_DENY_SENDER"
)

// weight is one recipient's sum and what his lists of senders say.
type weight struct {
	score    verdict.Score
	symbols  []verdict.Finding // sorted by symbol
	heaviest *verdict.Finding  // the highest score above 0, nil if none
	allowed  bool              // a final allow entry, and no final deny entry
	denied   *verdict.Finding  // a final deny entry
}

// weigh sums up the scores that count for a recipient.
func weigh(c *Case, p *Effective) weight {
	var w weight
	if !p.ScanSpam {
		return w
	}
	for _, f := range c.Verdict.Findings {
		if f.Kind != verdict.KindSpam && f.Kind != verdict.KindAuth || !p.counts(f.Scanner) {
			continue
		}
		if s, ok := p.SymbolScores.Get(f.Symbol); ok {
			f.Score = s
		}
		f.Score = bounded(f.Score)
		w.symbols = append(w.symbols, f)
	}
	allow, final := w.list(c, p, p.AllowSenders, true)
	deny, finalDeny := w.list(c, p, p.DenySenders, false)
	if allow != nil {
		w.symbols = append(w.symbols, *allow)
	}
	if deny != nil {
		w.symbols = append(w.symbols, *deny)
	}
	if finalDeny {
		w.denied = deny
	}
	w.allowed = final && !finalDeny

	slices.SortFunc(w.symbols, func(a, b verdict.Finding) int {
		if n := strings.Compare(a.Symbol, b.Symbol); n != 0 {
			return n
		}
		return compare(a, b)
	})
	for i := range w.symbols {
		f := &w.symbols[i]
		w.score += f.Score
		if f.Score > 0 && (w.heaviest == nil || compare(*f, *w.heaviest) < 0) {
			w.heaviest = f
		}
	}
	w.score = bounded(w.score)
	return w
}

func bounded(s verdict.Score) verdict.Score {
	return min(max(s, -verdict.MaxScore), verdict.MaxScore)
}

// list asks one list for the sender and the author. Each is looked up in the
// order of envelope.Keys without extensions of its own; the first key decides. Of
// two entries that count the lower allow and the higher deny is added, and one
// that is final is enough.
func (w *weight) list(c *Case, p *Effective, l Layers[SenderScore], allow bool) (*verdict.Finding, bool) {
	if len(l) == 0 {
		return nil, false
	}
	var best *verdict.Finding
	final := false
	ask := func(who string, a envelope.Address, authSymbol string) {
		key, s, ok := lookupSender(l, a)
		if !ok || allow && !s.Unauthenticated && !authenticated(c.Verdict, authSymbol) {
			return
		}
		final = final || s.Final
		f := verdict.Finding{Symbol: SymbolDenySender, Kind: verdict.KindSpam, Score: bounded(s.Score), Scanner: verdict.FinderPolicy,
			Description: who + " is in deny_senders", Detail: key}
		if allow {
			f.Symbol, f.Description = SymbolAllowSender, who+" is in allow_senders"
		}
		if best == nil || allow && f.Score < best.Score || !allow && f.Score > best.Score {
			best = &f
		}
	}
	if c.Envelope != nil {
		ask("the sender", c.Envelope.Sender.Address, symbolSPFPass)
	}
	if !c.Author.IsNull() {
		ask("the author", c.Author, symbolDKIMPass)
	}
	return best, final
}

// senderDelimiters begin an extension in senders' addresses, whatever the site's
// own recipients use.
const senderDelimiters = "+"

func lookupSender(l Layers[SenderScore], a envelope.Address) (key string, s SenderScore, ok bool) {
	for _, k := range envelope.Keys(a, senderDelimiters) {
		if s, ok := l.Get(k); ok {
			return k, s, true
		}
	}
	return "", SenderScore{}, false
}

// reason says which threshold was reached, with the heaviest symbols.
func (w *weight) reason(field string, limit verdict.Score) string {
	top := slices.Clone(w.symbols)
	slices.SortFunc(top, compare)
	var names []string
	for _, f := range top {
		if f.Score <= 0 || len(names) == 3 {
			break
		}
		names = append(names, f.Symbol)
	}
	s := "score " + w.score.String() + " ≥ " + field + " " + limit.String()
	if len(names) > 0 {
		s += " (" + strings.Join(names, ", ") + ")"
	}
	return s
}

// clean says why a message is clean.
func (w *weight) clean(p *Effective) string {
	switch {
	case !p.ScanSpam:
		return "nothing found, not looked at for spam (scan_spam: false)"
	case w.allowed:
		return "the sender is in allow_senders"
	}
	return "score " + w.score.String() + " < mark_score " + p.MarkScore.String()
}
