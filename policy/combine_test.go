package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
	"sluice/policy"
)

// What the tests' Combine can do.
var (
	noStore   = policy.Capabilities{}
	withStore = policy.Capabilities{Store: true}
	withAll   = policy.Capabilities{Store: true, Reinject: true}
)

// decided is a recipient with what was decided for him.
type decided struct {
	d verdict.Decision
	p *policy.Effective
}

// combine gives the recipients addresses a@, b@, c@example.net.
func combine(c *policy.Case, can policy.Capabilities, rs ...decided) policy.Outcome {
	var ds []verdict.Decision
	var ps []*policy.Effective
	for i, r := range rs {
		r.d.Recipient = string(rune('a'+i)) + "@example.net"
		ds, ps = append(ds, r.d), append(ps, r.p)
	}
	return policy.Combine(c, ds, ps, can)
}

// as is a decision of that action by the default policy, changed by edit.
func as(a verdict.Action, c verdict.Class, edit ...func(*policy.Effective)) decided {
	p := policy.Defaults()
	for _, e := range edit {
		e(p)
	}
	d := verdict.Decision{Class: c, Action: a, Score: verdict.Point, Mark: p.MarkScore, Kill: p.KillScore}
	if c != verdict.ClassClean {
		d.Classes = []verdict.Class{c}
		p.Actions[c] = a
	}
	return decided{d, p}
}

func observe(p *policy.Effective)             { p.Observe = true }
func outbound(p *policy.Effective)            { p.Direction = envelope.Outbound }
func to(s string) func(*policy.Effective)     { return func(p *policy.Effective) { p.RedirectTo = s } }
func tagged(s string) func(*policy.Effective) { return func(p *policy.Effective) { p.SubjectTag = s } }
func uncheckedTag(s string) func(*policy.Effective) {
	return func(p *policy.Effective) { p.UncheckedSubjectTag = s }
}
func keepNothing(p *policy.Effective) { p.Quarantine = nil }
func rejectText(s string) func(*policy.Effective) {
	return func(p *policy.Effective) { p.RejectText = s }
}
func threshold(v verdict.Score) func(*policy.Effective) {
	return func(p *policy.Effective) { p.MarkScore = v }
}

// told writes an outcome in short: the reply's code or "ok" or "discard", who is
// taken off, who is added, what is kept (! = the only copy), the count of splits, what is carried out.
func told(o policy.Outcome) string {
	var b strings.Builder
	switch d := o.Disposition; {
	case d.Discard:
		b.WriteString("discard")
	case d.Reply.Code == 0:
		b.WriteString("ok")
	default:
		fmt.Fprint(&b, d.Reply.Code)
	}
	for _, r := range o.Disposition.RemoveRecipients {
		b.WriteString(" -" + strings.TrimSuffix(r, "@example.net"))
	}
	for _, r := range o.Disposition.AddRecipients {
		b.WriteString(" +" + r)
	}
	for _, k := range o.Keep {
		b.WriteString(" keep" + string(rune('a'+k.Index)))
		if k.Sole {
			b.WriteString("!")
		}
	}
	for _, c := range o.Copies {
		b.WriteString(" copy" + fmt.Sprint(c.Indexes) + c.RedirectTo)
	}
	if o.Split > 0 {
		fmt.Fprintf(&b, " split%d", o.Split)
	}
	if o.Compromise > 0 {
		fmt.Fprintf(&b, " compromise%d", o.Compromise)
	}
	return fmt.Sprint(b.String(), " ", o.Carried)
}

// TestCases has the seven cases of DESIGN §4 with and without a store, and
// `observe`.
func TestCases(t *testing.T) {
	var (
		accept     = as(verdict.Accept, verdict.ClassClean)
		tag        = as(verdict.Tag, verdict.ClassMarked)
		redirect   = as(verdict.Redirect, verdict.ClassSpam, to("box@example.org"))
		tempfail   = as(verdict.Tempfail, verdict.ClassFailed)
		deferSpam  = as(verdict.Tempfail, verdict.ClassSpam)
		quarantine = as(verdict.Quarantine, verdict.ClassSpam)
		discard    = as(verdict.Discard, verdict.ClassSpam)
		reject     = as(verdict.Reject, verdict.ClassVirus)
		rejectFail = as(verdict.Reject, verdict.ClassFailed) // a class that the list does not keep
		observed   = as(verdict.Reject, verdict.ClassVirus, observe)
		observedOK = as(verdict.Accept, verdict.ClassClean, observe)
		observed4  = as(verdict.Tempfail, verdict.ClassFailed, observe)
	)
	relay, local := newCase(), newCase()
	relay.Relay, local.Local = true, true
	for _, tt := range []struct {
		name string
		c    *policy.Case
		can  policy.Capabilities
		rs   []decided
		want string
	}{
		{"1 all accept", newCase(), noStore, []decided{accept, accept}, "ok [accept accept]"},
		{"1 all tag", newCase(), noStore, []decided{tag, tag}, "ok [tag tag]"},
		{"1 all reject", newCase(), noStore, []decided{reject, reject}, "550 [reject reject]"},
		{"1 all reject, kept beside", newCase(), withStore, []decided{reject, reject}, "550 keepa keepb [reject reject]"},
		{"1 reject of a class that isn't kept", newCase(), withStore, []decided{rejectFail}, "550 [reject]"},
		{"1 all discard", newCase(), noStore, []decided{discard, discard}, "discard [discard discard]"},
		{"1 all discard, kept", newCase(), withStore, []decided{discard}, "discard keepa! [discard]"},
		{"1 discard, nothing kept", newCase(), withStore, []decided{as(verdict.Discard, verdict.ClassSpam, keepNothing)}, "discard [discard]"},
		{"1 all quarantine", newCase(), withStore, []decided{quarantine, quarantine}, "discard keepa! keepb! [quarantine quarantine]"},
		{"1 quarantine keeps whatever the list says", newCase(), withStore, []decided{as(verdict.Quarantine, verdict.ClassSpam, keepNothing)}, "discard keepa! [quarantine]"},
		{"1 all redirect, without re-injection", newCase(), withStore, []decided{redirect, redirect}, "ok -a -b +box@example.org keepa! keepb! [redirect redirect]"},
		{"1 all redirect, with re-injection", newCase(), withAll, []decided{redirect, redirect}, "discard keepa! keepb! copy[0 1]box@example.org [redirect redirect]"},
		{"1 all tempfail", newCase(), noStore, []decided{tempfail}, "451 [tempfail]"},

		{"2 discard beside delivery", newCase(), noStore, []decided{accept, discard}, "ok -b [accept discard]"},
		{"2 discard beside delivery, kept", newCase(), withStore, []decided{discard, tag}, "ok -a keepa! [discard tag]"},
		{"2 quarantine beside delivery", newCase(), withStore, []decided{quarantine, accept}, "ok -a keepa! [quarantine accept]"},
		{"2 redirect beside delivery, with re-injection", newCase(), withAll, []decided{accept, redirect}, "ok -b keepb! copy[1]box@example.org [accept redirect]"},
		{"2 redirect beside delivery, without", newCase(), withStore, []decided{accept, redirect}, "ok -b +box@example.org keepb! [accept redirect]"},
		{"2 redirect to one who gets it anyhow", newCase(), withStore, []decided{accept, as(verdict.Redirect, verdict.ClassSpam, to("A@example.net"), keepNothing)}, "ok -b [accept redirect]"},
		{"2 quarantine without a store: when in doubt 451", newCase(), noStore, []decided{accept, quarantine}, "451 [tempfail tempfail]"},
		{"2 redirect without a store: when in doubt 451", newCase(), noStore, []decided{accept, redirect}, "451 [tempfail tempfail]"},

		{"3 reject beside delivery", newCase(), withStore, []decided{accept, reject}, "ok -b keepb! split1 [accept quarantine]"},
		{"3 reject beside delivery, not listed: kept all the same", newCase(), withStore, []decided{accept, rejectFail}, "ok -b keepb! split1 [accept quarantine]"},
		{"3 reject beside discard", newCase(), withStore, []decided{discard, reject}, "550 keepa keepb [discard reject]"},
		{"3 reject beside quarantine", newCase(), withStore, []decided{quarantine, reject}, "550 keepa keepb [quarantine reject]"},
		{"3 reject beside a redirect that is added", newCase(), withStore, []decided{redirect, reject}, "ok -a -b +box@example.org keepa! keepb! split1 [redirect quarantine]"},
		{"3 reject beside a redirect that is re-injected", newCase(), withAll, []decided{redirect, reject}, "550 keepa keepb copy[0]box@example.org [redirect reject]"},
		{"3 without a store: 5xx for all", newCase(), noStore, []decided{accept, reject, tag}, "550 split1 [reject reject reject]"},
		{"3 without a store: reject beside discard", newCase(), noStore, []decided{discard, reject}, "550 [discard reject]"},

		{"4 tempfail beside delivery", newCase(), withStore, []decided{accept, tempfail}, "451 [tempfail tempfail]"},
		{"4 tempfail beside reject", newCase(), noStore, []decided{reject, tempfail}, "451 [tempfail tempfail]"},
		{"4 tempfail beside quarantine: nothing done", newCase(), withAll, []decided{quarantine, redirect, tempfail}, "451 [tempfail tempfail tempfail]"},

		{"5 marked and not", newCase(), withStore, []decided{accept, tag}, "ok compromise1 [accept tag]"},
		{"5 marked and not, with re-injection", newCase(), withAll, []decided{accept, tag, accept}, "ok copy[1] [accept tag accept]"},

		{"6 relay: reject is quarantine", relay, withStore, []decided{reject}, "discard keepa! [quarantine]"},
		{"6 relay: reject beside delivery", relay, withStore, []decided{reject, accept}, "ok -a keepa! [quarantine accept]"},
		{"6 relay without a store: 451", relay, noStore, []decided{reject}, "451 [tempfail]"},
		{"6 relay: other actions as ever", relay, noStore, []decided{discard, tag}, "ok -a [discard tag]"},

		{"7 local: reject is 5xx", local, noStore, []decided{reject}, "550 [reject]"},
		{"7 local: failed waits in maildrop", local, withStore, []decided{tempfail}, "451 [tempfail]"},
		{"7 local: a policy's tempfail is quarantine", local, withStore, []decided{deferSpam}, "discard keepa! [quarantine]"},
		{"7 local without a store: 5xx", local, noStore, []decided{deferSpam}, "550 [reject]"},
		{"7 local: the final action without a store never comes", local, noStore, []decided{as(verdict.Quarantine, verdict.ClassFailed)}, "451 [tempfail]"},

		{"observe alone", newCase(), noStore, []decided{observed, observedOK}, "ok [accept accept]"},
		{"observe alone, tempfail", newCase(), noStore, []decided{observed4}, "ok [accept]"},
		{"observe beside a 451 that others force", newCase(), noStore, []decided{observed, tempfail}, "451 [tempfail tempfail]"},
		{"observe beside reject, with a store", newCase(), withStore, []decided{observed, reject}, "ok -b keepb! split1 [accept quarantine]"},
		{"observe beside reject, without: no 5xx", newCase(), noStore, []decided{observed, reject}, "451 split1 [tempfail tempfail]"},
		{"observe beside discard", newCase(), noStore, []decided{observed, discard}, "ok -b [accept discard]"},
		{"observe keeps nothing", newCase(), withStore, []decided{as(verdict.Quarantine, verdict.ClassVirus, observe)}, "ok [accept]"},

		{"nobody", newCase(), withAll, nil, "451 []"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := combine(tt.c, tt.can, tt.rs...)
			if got := told(o); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			for i := range tt.rs {
				if o.Disposition.Decisions[i].Action != tt.rs[i].d.Action {
					t.Error("what was decided is recorded as it was decided")
				}
			}
		})
	}
}

func TestNotes(t *testing.T) {
	relay, local := newCase(), newCase()
	relay.Relay, local.Local = true, true
	for _, tt := range []struct {
		name string
		c    *policy.Case
		rs   []decided
		want []string
	}{
		{"nothing to note", newCase(), []decided{as(verdict.Accept, verdict.ClassClean)}, nil},
		{"split", newCase(), []decided{as(verdict.Accept, verdict.ClassClean), as(verdict.Reject, verdict.ClassVirus)}, []string{policy.NoteSplit}},
		{"compromise", newCase(), []decided{as(verdict.Accept, verdict.ClassClean), as(verdict.Tag, verdict.ClassMarked)}, []string{policy.NoteCompromise}},
		{"observe", newCase(), []decided{as(verdict.Reject, verdict.ClassVirus, observe)}, []string{policy.NoteObserve}},
		{"relay", relay, []decided{as(verdict.Reject, verdict.ClassVirus), as(verdict.Reject, verdict.ClassVirus)}, []string{policy.NoteRelay}},
		{"local", local, []decided{as(verdict.Tempfail, verdict.ClassSpam)}, []string{policy.NoteLocal}},
	} {
		if o := combine(tt.c, withStore, tt.rs...); !slices.Equal(o.Disposition.Notes, tt.want) {
			t.Errorf("%s: %v", tt.name, o.Disposition.Notes)
		}
	}
}

func TestReplies(t *testing.T) {
	size := as(verdict.Reject, verdict.ClassBanned)
	size.d.Cause = &verdict.Finding{Symbol: policy.SymbolSizeLimit}
	relay := newCase()
	relay.Relay = true
	for _, tt := range []struct {
		name string
		c    *policy.Case
		rs   []decided
		want string
	}{
		{"virus", newCase(), []decided{as(verdict.Reject, verdict.ClassVirus)}, "550 5.7.1 Message refused: contains malware (id 0192)"},
		{"spam", newCase(), []decided{as(verdict.Reject, verdict.ClassSpam)}, "550 5.7.1 Message refused as spam (id 0192)"},
		{"marked", newCase(), []decided{as(verdict.Reject, verdict.ClassMarked)}, "550 5.7.1 Message refused as spam (id 0192)"},
		{"banned", newCase(), []decided{as(verdict.Reject, verdict.ClassBanned)}, "550 5.7.1 Message refused: attachment not allowed (id 0192)"},
		{"too large", newCase(), []decided{size}, "552 5.3.4 Message refused: too large for this recipient (id 0192)"},
		{"ambiguous", newCase(), []decided{as(verdict.Reject, verdict.ClassAmbiguous)}, "550 5.6.0 Message refused: malformed, mail programs would read it differently (id 0192)"},
		{"unchecked", newCase(), []decided{as(verdict.Reject, verdict.ClassUnchecked)}, "550 5.7.1 Message refused: has content that can not be checked (id 0192)"},
		{"failed, refused", newCase(), []decided{as(verdict.Reject, verdict.ClassFailed)}, "550 5.7.1 Message refused: content could not be checked (id 0192)"},
		{"failed", newCase(), []decided{as(verdict.Tempfail, verdict.ClassFailed)}, "451 4.7.1 Content could not be checked, please try again later (id 0192)"},
		{"tempfail for another class", newCase(), []decided{as(verdict.Tempfail, verdict.ClassSpam)}, "451 4.7.1 Message not accepted now, please try again later (id 0192)"},
		{"relay", relay, []decided{as(verdict.Reject, verdict.ClassVirus)}, "451 4.7.1 Message not accepted now, please try again later (id 0192)"},
		{"the gravest of several", newCase(), []decided{as(verdict.Reject, verdict.ClassSpam, rejectText("spam text")), as(verdict.Reject, verdict.ClassVirus, rejectText("virus text"))},
			"550 5.7.1 Message refused: contains malware. virus text (id 0192)"},
		{"the site's text", newCase(), []decided{as(verdict.Reject, verdict.ClassSpam, rejectText("Ask 100% of us"))}, "550 5.7.1 Message refused as spam. Ask 100% of us (id 0192)"},
		{"the site's text, hostile", newCase(), []decided{as(verdict.Reject, verdict.ClassSpam, rejectText("a\r\n250 ok\x00ü"))}, "550 5.7.1 Message refused as spam. a  250 ok ? (id 0192)"},
		{"451 has no text of the site's", newCase(), []decided{as(verdict.Tempfail, verdict.ClassFailed, rejectText("x"))}, "451 4.7.1 Content could not be checked, please try again later (id 0192)"},
		{"nobody", newCase(), nil, "451 4.3.0 Message not accepted now, please try again later (id 0192)"},
	} {
		o := combine(tt.c, noStore, tt.rs...)
		r := o.Disposition.Reply
		if got := fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, r.Text); got != tt.want {
			t.Errorf("%s:\n got  %s\n want %s", tt.name, got, tt.want)
		}
		if r.Accepted() || len(r.Text) > 480 {
			t.Errorf("%s: %+v", tt.name, r)
		}
	}
	long := combine(newCase(), noStore, as(verdict.Reject, verdict.ClassSpam, rejectText(strings.Repeat("x", 1000))))
	if text := long.Disposition.Reply.Text; len(text) > 480 || !strings.HasSuffix(text, "(id 0192)") {
		t.Errorf("a long text: %d bytes", len(text))
	}
}

// bears writes a bearing in short.
func bears(b policy.Bearing) string {
	switch {
	case b.Untouched:
		return "untouched"
	case b.Outbound:
		return "outbound"
	}
	var s []string
	if b.SpamFields {
		s = append(s, fmt.Sprintf("%s/%s", b.Score, b.Required))
	}
	if b.Flag {
		s = append(s, "flag")
	}
	if b.Class != verdict.ClassClean {
		s = append(s, b.Class.String())
	}
	s = append(s, b.Tags...)
	return strings.Join(s, " ")
}

// scored changes a decision's score.
func scored(r decided, v float64) decided { r.d.Score = verdict.Points(v); return r }

// TestBearing is what the message shows: DESIGN §4's actions accept and tag, case 5
// and §7.
func TestBearing(t *testing.T) {
	var (
		clean     = as(verdict.Accept, verdict.ClassClean)
		marked    = scored(as(verdict.Tag, verdict.ClassMarked, tagged("[S]"), uncheckedTag("[?]")), 6)
		lenient   = scored(as(verdict.Accept, verdict.ClassMarked, tagged("[S]")), 6)
		spamTag   = scored(as(verdict.Tag, verdict.ClassSpam, tagged("[S]")), 20)
		uncheck   = as(verdict.Tag, verdict.ClassUnchecked, tagged("[S]"), uncheckedTag("[?]"))
		uncheckOK = as(verdict.Accept, verdict.ClassUnchecked, uncheckedTag("[?]"))
		both      = scored(as(verdict.Tag, verdict.ClassUnchecked, tagged("[S]"), uncheckedTag("[?]")), 6)
		watcher   = scored(as(verdict.Reject, verdict.ClassVirus, observe), 50)
		outside   = as(verdict.Accept, verdict.ClassClean, outbound)
	)
	both.d.Classes = []verdict.Class{verdict.ClassUnchecked, verdict.ClassMarked}
	dmarc := scored(as(verdict.Tag, verdict.ClassSpam, tagged("[S]")), 1)
	dmarc.p.Actions[verdict.ClassSpam] = verdict.Accept // the action came from dmarc_action
	final := as(verdict.Tag, verdict.ClassFailed, uncheckedTag("[?]"))
	final.p.Actions[verdict.ClassFailed] = verdict.Tempfail // the action is the final one
	noScan := as(verdict.Accept, verdict.ClassClean, func(p *policy.Effective) { p.ScanSpam = false })
	highTag := as(verdict.Accept, verdict.ClassClean, func(p *policy.Effective) { p.TagScore = 2 * verdict.Point })
	out := newCase()
	out.Direction = envelope.Outbound
	for _, tt := range []struct {
		name       string
		c          *policy.Case
		rs         []decided
		want       string
		compromise int
	}{
		{"clean", newCase(), []decided{clean}, "1/5", 0},
		{"below tag_score", newCase(), []decided{highTag}, "", 0},
		{"scan_spam off", newCase(), []decided{noScan}, "", 0},
		{"marked and tagged", newCase(), []decided{marked}, "6/5 flag [S]", 0},
		{"marked and accepted: never the flag nor a tag", newCase(), []decided{lenient}, "6/5", 0},
		{"spam and tagged", newCase(), []decided{spamTag}, "20/5 flag spam [S]", 0},
		{"unchecked and tagged", newCase(), []decided{uncheck}, "1/5 unchecked [?]", 0},
		{"unchecked and accepted: the class, no tag", newCase(), []decided{uncheckOK}, "1/5 unchecked", 0},
		{"unchecked and marked, each adds its own", newCase(), []decided{both}, "6/5 flag unchecked [S] [?]", 0},
		{"dmarc_action tag", newCase(), []decided{dmarc}, "1/5 flag spam [S]", 0},
		{"failed_final_action tag", newCase(), []decided{final}, "1/5 failed [?]", 0},

		{"numbers alone never split", newCase(), []decided{scored(clean, 3), as(verdict.Accept, verdict.ClassClean, threshold(4*verdict.Point))}, "3/4", 0},
		{"the lowest threshold, whoever comes first", newCase(), []decided{as(verdict.Accept, verdict.ClassClean, threshold(4*verdict.Point)), scored(clean, 3)}, "3/4", 0},
		{"flag if any, tag only if all", newCase(), []decided{marked, clean}, "6/5 flag", 2},
		{"all marked, other tags", newCase(), []decided{marked, scored(as(verdict.Tag, verdict.ClassMarked, tagged("[X]")), 6)}, "6/5 flag", 2},
		{"all marked, one tag", newCase(), []decided{marked, marked}, "6/5 flag [S]", 0},
		{"fields if any", newCase(), []decided{clean, noScan}, "1/5", 1},
		{"the gravest class", newCase(), []decided{uncheckOK, clean}, "1/5 unchecked", 1},

		{"observe", newCase(), []decided{watcher}, "untouched", 0},
		{"observe has no say beside others", newCase(), []decided{watcher, clean}, "1/5", 1},
		{"observe beside marked: not all have the tag", newCase(), []decided{watcher, marked}, "6/5 flag", 2},
		{"observe beside one who is stopped", newCase(), []decided{watcher, as(verdict.Discard, verdict.ClassSpam)}, "untouched", 0},
		{"who is stopped has no say", newCase(), []decided{clean, as(verdict.Discard, verdict.ClassSpam)}, "1/5", 0},

		{"outbound", out, []decided{outside, outside}, "outbound", 0},
		{"originating, to one with an inbound policy", out, []decided{marked}, "6/5 flag [S]", 0},
		{"originating, clean, to both", out, []decided{outside, clean}, "outbound", 1},
		{"originating, marked for one inside", out, []decided{outside, marked}, "6/5 flag", 2},
	} {
		o := combine(tt.c, noStore, tt.rs...)
		if got := bears(o.Bearing); got != tt.want || o.Compromise != tt.compromise || o.Disposition.Reply.Code != 0 {
			t.Errorf("%s: %q with %d compromises, want %q with %d", tt.name, got, o.Compromise, tt.want, tt.compromise)
		}
	}
}

// TestGroups: with re-injection the largest group goes on as it is, past 16 groups
// all share one form.
func TestGroups(t *testing.T) {
	clean := as(verdict.Accept, verdict.ClassClean)
	marked := scored(as(verdict.Tag, verdict.ClassMarked, tagged("[S]")), 6)
	o := combine(newCase(), withAll, marked, clean, clean)
	if got := bears(o.Bearing); got != "1/5" || len(o.Copies) != 1 || bears(o.Copies[0].Bearing) != "6/5 flag [S]" || o.Compromise != 0 {
		t.Errorf("%q, copies %+v", got, o.Copies)
	}
	if len(o.Disposition.RemoveRecipients) > 0 {
		t.Error("a recipient is taken off before his copy was accepted")
	}
	for _, n := range []int{16, 17} {
		var rs []decided
		for i := range n {
			rs = append(rs, scored(as(verdict.Tag, verdict.ClassMarked, tagged(fmt.Sprint(i))), 6))
		}
		o := combine(newCase(), withAll, rs...)
		if n <= 16 && (len(o.Copies) != n-1 || o.Compromise != 0) || n > 16 && (len(o.Copies) != 0 || o.Compromise != n) {
			t.Errorf("%d groups: %d copies, %d compromises", n, len(o.Copies), o.Compromise)
		}
	}
}

// TestOriginating: DESIGN §4, a recipient of originating mail who has an inbound
// policy is decided by both.
func TestOriginating(t *testing.T) {
	s := load(t, `
  - {match: "@.", direction: outbound, spam_action: discard, reject_text: "out"}
  - {match: "@strict.example", spam_action: reject, mark_score: 2, subject_tag: "[S]", reject_text: "in"}
  - {match: "@mild.example", spam_action: tag, kill_score: 20, mark_score: 8, subject_tag: "[M]"}
  - {match: "@watch.example", observe: true, spam_action: reject}
`)
	c := newCase(gtube)
	c.Direction = envelope.Outbound
	soft := newCase(spam("A", 6))
	soft.Direction = envelope.Outbound
	for _, tt := range []struct {
		name, rcpt string
		c          *policy.Case
		action     verdict.Action
		bears      string
	}{
		{"the inbound action is the more severe", "u@strict.example", c, verdict.Reject, ""},
		{"the outbound action is the more severe", "u@mild.example", c, verdict.Discard, ""},
		{"inbound observes: outbound acts", "u@watch.example", c, verdict.Discard, ""},
		{"both tag: inbound header fields", "u@strict.example", soft, verdict.Tag, "6/2 flag [S]"},
		{"only outbound tags: the lower threshold", "u@mild.example", soft, verdict.Tag, "6/5 flag [M]"},
		{"inbound observes: nothing is borne", "u@watch.example", soft, verdict.Tag, "outbound"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rcpt(tt.rcpt)
			outP, inP := s.Outbound(envelope.Address{}), s.Inbound(r.Address)
			if !s.HasInbound(r.Address) {
				t.Fatal("no inbound policy")
			}
			d, p := policy.Originating(policy.Decide(tt.c, r, outP), policy.Decide(tt.c, r, inP), outP, inP)
			if d.Action != tt.action {
				t.Errorf("action %v", d.Action)
			}
			o := policy.Combine(tt.c, []verdict.Decision{d}, []*policy.Effective{p}, noStore)
			if got := bears(o.Bearing); got != tt.bears {
				t.Errorf("bears %q", got)
			}
			if d.Action == verdict.Reject && !strings.Contains(o.Disposition.Reply.Text, ". in (id") {
				t.Errorf("reply %q", o.Disposition.Reply.Text)
			}
		})
	}
	watching := load(t, "  - {match: \"@.\", direction: outbound, observe: true}\n  - {match: \"@mild.example\", spam_action: tag}\n")
	r := rcpt("u@mild.example")
	outP, inP := watching.Outbound(envelope.Address{}), watching.Inbound(r.Address)
	d, p := policy.Originating(policy.Decide(c, r, outP), policy.Decide(c, r, inP), outP, inP)
	if d.Action != verdict.Tag || p.Observe {
		t.Errorf("an observing outbound policy took a say: %v", d.Action)
	}
}

// TestCombineProperties, over every mix: whoever's action stops the mail never
// gets it; an envelope is never emptied with a 250; what is thrown away is kept or
// was to be discarded; without a store nothing is kept, with a relay nobody gets
// 5xx; a 451 changes nothing.
func TestCombineProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	cans := []policy.Capabilities{noStore, withStore, withAll, {Reinject: true}}
	for range 20_000 {
		c := newCase(randomFindings(rng, rng.IntN(4))...)
		c.Relay = rng.IntN(4) == 0
		c.Local = !c.Relay && rng.IntN(4) == 0
		if rng.IntN(4) == 0 {
			c.Direction = envelope.Outbound
		}
		can := cans[rng.IntN(len(cans))]
		var rs []decided
		for range 1 + rng.IntN(4) {
			p := randomPolicy(rng)
			p.Direction = envelope.Direction(rng.IntN(2))
			rs = append(rs, decided{decide(c, p), p})
		}
		o := combine(c, can, rs...)
		fail := func(why string) {
			t.Helper()
			t.Fatalf("%s: %s, decided %+v", why, told(o), rs)
		}
		disp := o.Disposition
		removed := func(i int) bool { return slices.Contains(disp.RemoveRecipients, string(rune('a'+i))+"@example.net") }
		kept := func(i int) bool {
			return slices.ContainsFunc(o.Keep, func(k policy.Keep) bool { return k.Index == i })
		}
		copied := func(i int) bool {
			return slices.ContainsFunc(o.Copies, func(c policy.Copy) bool { return slices.Contains(c.Indexes, i) })
		}
		if !can.Store && len(o.Keep) > 0 || !can.Reinject && len(o.Copies) > 0 {
			fail("does what it can't")
		}
		if disp.Reply.Code != 0 && (disp.Discard || len(disp.RemoveRecipients)+len(disp.AddRecipients) > 0) {
			fail("changes beside a refusal")
		}
		if disp.Reply.Code/100 == 4 && len(o.Keep)+len(o.Copies) > 0 {
			fail("451, and something is done")
		}
		if c.Relay && disp.Reply.Code/100 == 5 {
			fail("5xx to a relay")
		}
		left := len(disp.AddRecipients)
		for i, r := range rs {
			gets := disp.Reply.Code == 0 && !disp.Discard && !removed(i)
			if gets {
				left++
			}
			observes := r.p.Observe
			switch {
			case disp.Reply.Code/100 == 4:
			case observes && !gets:
				fail("an observing policy stopped mail")
			case !observes && gets && !r.d.Action.Delivers():
				fail("a stopped recipient gets it")
			case !gets && disp.Reply.Code == 0 && r.d.Action != verdict.Discard && !kept(i) && !copied(i) && r.d.Action != verdict.Redirect:
				fail("lost")
			case !gets && disp.Reply.Code == 0 && r.d.Action.Delivers() && !observes:
				fail("a delivered recipient gets nothing")
			}
			if len(o.Carried) != len(rs) || gets != (o.Carried[i].Delivers() && disp.Reply.Code == 0) {
				fail("carried out otherwise than recorded")
			}
		}
		if disp.Reply.Code == 0 && !disp.Discard && left == 0 {
			fail("empty envelope with 250")
		}
		if disp.Discard && left > 0 {
			fail("discarded though somebody gets it")
		}
	}
}
