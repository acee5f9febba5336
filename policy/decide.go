package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
)

// Names of scanners whose findings belong to a field of policies.
const (
	scannerClamav     = "clamav"
	scannerRules      = "rules"
	scannerBayes      = "bayes"
	scannerDNSBL      = "dnsbl"
	scannerSender     = "sender"
	scannerAttachment = "attachment"
)

// SymbolSizeLimit is the symbol of the finding for mail larger than max_size.
const SymbolSizeLimit = "SIZE_LIMIT"

// Symbols of scanner "sender" (kind auth) that decisions look at.
const (
	symbolSPFPass    = "SPF_PASS"         // SPF passed for the envelope sender's domain
	symbolDKIMPass   = "DKIM_VALID_AU"    // a signature aligned with the author's domain is valid
	symbolDMARCFail  = "DMARC_REJECT"     // DMARC failed, no override, and the domain says reject
	symbolDMARCQuar  = "DMARC_QUARANTINE" // the same, and it says quarantine
	symbolDMARCQuar2 = "DMARC_QUAR"       // SpamAssassin's name for it
)

// Decide says what becomes of one recipient's copy. Of the classes that apply
// the one whose action is the most severe counts, ties in the order of classes;
// the decision bears all of them.
//
// What a scanner found, and that it failed, counts only if the field it belongs
// to is on: clamav → scan_virus, attachment → scan_attachments, rules, bayes,
// dnsbl and sender → scan_spam. What the reader and the gateway say, or anybody
// unknown here, always counts, and so do max_size and dmarc_action. With
// scan_spam off there is no score, and no list of senders is asked.
//
// An allow entry counts if sender left SPF_PASS (for the sender) or DKIM_VALID_AU
// (for the author), kind auth, or if it says unauthenticated. A final deny entry
// wins over a final allow entry; a final allow entry also keeps dmarc_action, whose
// class is spam, from being applied.
func Decide(c *Case, rcpt envelope.Recipient, p *Effective) verdict.Decision {
	w := weigh(c, p)
	d := verdict.Decision{
		Recipient: rcpt.Address.String(),
		Score:     w.score, Mark: p.MarkScore, Kill: p.KillScore,
		Symbols: w.symbols,
	}
	best := ruling{field: keyMark, reason: w.clean(p)}
	if !p.ScanSpam {
		best.field = keyScanSpam
	}
	for _, r := range rulings(c, p, w) {
		if r.action == verdict.Redirect && p.RedirectTo == "" {
			r.action = verdict.Quarantine
		}
		if !d.Has(r.class) {
			d.Classes = append(d.Classes, r.class)
		}
		if best.class == verdict.ClassClean || r.beats(best) {
			best = r
		}
	}
	slices.SortFunc(d.Classes, func(a, b verdict.Class) int { return cmp.Compare(b, a) })
	d.Class, d.Action, d.Cause = best.class, best.action, best.cause
	d.Reason = verdict.Printable(best.reason, 300)
	d.Policy = p.Origin(best.field)
	if d.Policy != BuiltIn {
		d.Policy += ": " + best.field
	}
	return d
}

// ruling is what policy does for one class that applies.
type ruling struct {
	class  verdict.Class
	action verdict.Action
	field  string // that set the action
	cause  *verdict.Finding
	reason string
}

func (r ruling) beats(o ruling) bool {
	if r.action != o.action {
		return r.action > o.action
	}
	return r.class > o.class
}

// rulings lists the classes that apply, with what policy does for each.
func rulings(c *Case, p *Effective, w weight) []ruling {
	var rs []ruling
	add := func(class verdict.Class, cause *verdict.Finding, reason string) *ruling {
		rs = append(rs, ruling{class, p.Actions[class], actionKey(class), cause, reason})
		return &rs[len(rs)-1]
	}
	for _, k := range []struct {
		kind  verdict.Kind
		class verdict.Class
	}{
		{verdict.KindVirus, verdict.ClassVirus},
		{verdict.KindBanned, verdict.ClassBanned},
		{verdict.KindAmbiguous, verdict.ClassAmbiguous},
		{verdict.KindUnchecked, verdict.ClassUnchecked},
	} {
		if f := gravest(c.Verdict, p, k.kind); f != nil {
			add(k.class, f, why(f))
		}
	}
	if p.MaxSize > 0 && c.Verdict.Size > p.MaxSize {
		f := &verdict.Finding{Symbol: SymbolSizeLimit, Kind: verdict.KindBanned, Scanner: verdict.FinderPolicy,
			Description: fmt.Sprintf("%d bytes are more than max_size %d", c.Verdict.Size, p.MaxSize)}
		add(verdict.ClassBanned, f, f.Description)
	}
	if f := failure(c.Verdict, p); f != nil {
		r := add(verdict.ClassFailed, f, why(f))
		if c.Failing > p.FailedAfter { // 0, unknown, is never longer
			r.action, r.field = p.FailedFinalAction, keyFailedFinal
			r.reason += ", for longer than failed_after"
		}
	}
	if !w.allowed {
		switch {
		case w.denied != nil:
			add(verdict.ClassSpam, w.denied, w.denied.Description)
		case p.ScanSpam && w.score >= p.KillScore:
			add(verdict.ClassSpam, w.heaviest, w.reason("kill_score", p.KillScore))
		}
		if p.ScanSpam && w.score >= p.MarkScore {
			add(verdict.ClassMarked, w.heaviest, w.reason("mark_score", p.MarkScore))
		}
		if f := dmarcFailure(c.Verdict); f != nil && p.DMARCAction != nil {
			rs = append(rs, ruling{verdict.ClassSpam, *p.DMARCAction, keyDMARC, f, "the author's domain asks for it: DMARC failed (" + f.Symbol + ")"})
		}
	}
	return rs
}

// counts reports whether the field that the scanner belongs to is on.
func (e *Effective) counts(scanner string) bool {
	switch scanner {
	case scannerClamav:
		return e.ScanVirus
	case scannerAttachment:
		return e.ScanAttachments
	case scannerRules, scannerBayes, scannerDNSBL, scannerSender:
		return e.ScanSpam
	}
	return true
}

// gravest returns the finding of a kind that stands for all of them, nil if none
// counts.
func gravest(v *verdict.Verdict, p *Effective, kind verdict.Kind) *verdict.Finding {
	var best *verdict.Finding
	for i := range v.Findings {
		f := &v.Findings[i]
		if f.Kind == kind && p.counts(f.Scanner) && (best == nil || compare(*f, *best) < 0) {
			best = f
		}
	}
	return best
}

// failure returns the finding that says that a required scanner gave no definite
// answer; it makes one up where the record of a scanner says so and no finding
// does: silence is never clean. A scanner that named what it could not look at,
// or that panicked or overran its budget, has a finding: unchecked.
func failure(v *verdict.Verdict, p *Effective) *verdict.Finding {
	if f := gravest(v, p, verdict.KindFailed); f != nil {
		return f
	}
	var best *verdict.Finding
	for _, r := range v.Scanners {
		if !r.Required || r.Complete || !p.counts(r.Name) || named(v, r.Name) {
			continue
		}
		f := verdict.Finding{Symbol: "NO_ANSWER", Kind: verdict.KindFailed, Scanner: r.Name,
			Description: "no definite answer", Detail: verdict.Printable(r.Err, 512)}
		if best == nil || compare(f, *best) < 0 {
			best = &f
		}
	}
	return best
}

// named reports whether the scanner named content that it could not look at.
func named(v *verdict.Verdict, scanner string) bool {
	return slices.ContainsFunc(v.Findings, func(f verdict.Finding) bool {
		return f.Scanner == scanner && f.Kind == verdict.KindUnchecked
	})
}

func dmarcFailure(v *verdict.Verdict) *verdict.Finding {
	for i := range v.Findings {
		f := &v.Findings[i]
		if f.Kind == verdict.KindAuth && f.Scanner == scannerSender {
			switch f.Symbol {
			case symbolDMARCFail, symbolDMARCQuar, symbolDMARCQuar2:
				return f
			}
		}
	}
	return nil
}

// authenticated reports whether sender found the symbol.
func authenticated(v *verdict.Verdict, symbol string) bool {
	return slices.ContainsFunc(v.Findings, func(f verdict.Finding) bool {
		return f.Kind == verdict.KindAuth && f.Scanner == scannerSender && f.Symbol == symbol
	})
}

// compare orders findings by all that they say, the highest score first, so that
// a choice between them does not depend on their order.
func compare(a, b verdict.Finding) int {
	return cmp.Or(
		cmp.Compare(b.Score, a.Score),
		strings.Compare(a.Symbol, b.Symbol),
		strings.Compare(a.Part, b.Part),
		strings.Compare(a.Scanner, b.Scanner),
		strings.Compare(a.Detail, b.Detail),
		strings.Compare(a.Description, b.Description),
		cmp.Compare(b.Kind, a.Kind),
	)
}

// why says in words what a finding is about.
func why(f *verdict.Finding) string {
	what := f.Detail
	switch f.Kind {
	case verdict.KindVirus:
		if what == "" {
			what = f.Symbol
		}
		return "virus " + what + " found by " + f.Scanner + in(f.Part)
	case verdict.KindFailed:
		if what == "" {
			what = f.Description
		}
		return f.Scanner + " gave no definite answer: " + what
	}
	s := f.Kind.String() + ": " + f.Symbol
	if f.Description != "" {
		s += ", " + f.Description
	}
	if what != "" {
		s += " (" + what + ")"
	}
	return s + in(f.Part)
}

func in(part string) string {
	if part == "" {
		return ""
	}
	return " in part " + part
}
