package policy

import "sluice/internal/verdict"

// Originating brings together what the sender's outbound policy and a recipient's
// inbound policy (one other than "@.") decided for a recipient of originating
// mail: the more severe action counts, and his copy bears inbound header fields.
// It returns the decision and the policy that Combine is to be given for him,
// which has the inbound policy's say on header fields, and the say of the one
// whose action counts on replies, redirection and the quarantine. A policy that only
// observes leaves the action to the other one.
func Originating(out, in verdict.Decision, outP, inP *Effective) (verdict.Decision, *Effective) {
	d := verdict.Merge(in, out)
	p := *inP
	switch {
	case outP.Observe == inP.Observe:
		if !decides(in, out) {
			p.RejectText, p.RedirectTo = outP.RejectText, outP.RedirectTo
			p.Quarantine, p.QuarantineDays = outP.Quarantine, outP.QuarantineDays
		}
	case outP.Observe:
		in.Classes = d.Classes
		return in, inP
	default: // the inbound policy observes: nothing of it is seen
		out.Classes = d.Classes
		return out, outP
	}
	return d, &p
}

func decides(a, b verdict.Decision) bool {
	return a.Action > b.Action || a.Action == b.Action && a.Class >= b.Class
}
