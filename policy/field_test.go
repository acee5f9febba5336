package policy_test

import (
	"slices"
	"strings"
	"testing"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
	"sluice/policy"
)

// Trouble that people had with other filters; each test is named after what went
// wrong.

// TestFieldDomainSubdomainCatchAll: a domain's settings did not hold for its
// catch-all addresses, sub-domains could have no rules of their own.
func TestFieldDomainSubdomainCatchAll(t *testing.T) {
	s := load(t, `
  - {match: "@.", spam_action: tag}
  - {match: "@.deep.example.org", spam_action: quarantine}
  - {match: "@deep.example.org", spam_action: discard}
  - {match: "info@deep.example.org", mark_score: 3.0}
`)
	for rcptTo, want := range map[string]verdict.Action{
		"x@deep.example.org":     verdict.Discard,
		"x@a.deep.example.org":   verdict.Quarantine,
		"x@b.a.deep.example.org": verdict.Quarantine,
		"x@undeep.example.org":   verdict.Tag,
		"x@example.org":          verdict.Tag,
		"info@deep.example.org":  verdict.Discard,
	} {
		r := rcpt(rcptTo)
		if d := policy.Decide(newCase(gtube), r, s.Inbound(r.Address)); d.Class != verdict.ClassSpam || d.Action != want {
			t.Errorf("%s: %v %v, want %v", rcptTo, d.Class, d.Action, want)
		}
	}
}

// TestFieldThresholdsOfARecipient: people who want everything delivered had mail
// refused all the same.
func TestFieldThresholdsOfARecipient(t *testing.T) {
	s := load(t, `
  - {match: "@keep.example.net", kill_score: 99999}
  - {match: "@off.example.net", scan_spam: false}
`)
	for rcptTo, want := range map[string]string{
		"a@keep.example.net": "marked tag", "a@off.example.net": "clean accept", "a@other.example.net": "spam reject",
	} {
		r := rcpt(rcptTo)
		d := policy.Decide(newCase(gtube), r, s.Inbound(r.Address))
		if got := d.Class.String() + " " + d.Action.String(); got != want {
			t.Errorf("%s: %s, want %s", rcptTo, got, want)
		}
	}
}

// TestFieldTagOnce: the part that policy has in it, the tag and the flag.
func TestFieldTagOnce(t *testing.T) {
	p := load(t, "  - match: \"@c55.example.net\"\n    tag_score: -999\n    mark_score: -100\n    subject_tag: \"[SPAM] \"\n").Inbound(addr("kim@c55.example.net"))
	c := newCase()
	o := policy.Combine(c, []verdict.Decision{policy.Decide(c, rcpt("kim@c55.example.net"), p)}, []*policy.Effective{p}, noStore)
	if !o.Bearing.Flag || !slices.Equal(o.Bearing.Tags, []string{"[SPAM] "}) || o.Bearing.Required != -100*verdict.Point {
		t.Errorf("%+v", o.Bearing)
	}
}

// TestFieldTextOfARefusal: a name with percent signs and 8-bit in it is not in the
// reply, the site's text is, as it was written.
func TestFieldTextOfARefusal(t *testing.T) {
	p := load(t, "  - match: \"@c59.example.net\"\n    reject_text: \"We refuse 100% of programs, ask the helpdesk\"\n").Inbound(addr("kim@c59.example.net"))
	f := banned
	f.Detail = "Prämie 50%s%n.exe"
	c := newCase(f)
	o := policy.Combine(c, []verdict.Decision{policy.Decide(c, rcpt("kim@c59.example.net"), p)}, []*policy.Effective{p}, noStore)
	r := o.Disposition.Reply
	if want := "Message refused: attachment not allowed. We refuse 100% of programs, ask the helpdesk (id 0192)"; r.Code != 550 || r.Enhanced != "5.7.1" || r.Text != want {
		t.Errorf("%+v", r)
	}
}

// TestFieldMailOfTheMachineItself: cron mail is accepted and not marked.
func TestFieldMailOfTheMachineItself(t *testing.T) {
	p := load(t, "  []\n").Outbound(envelope.Address{})
	c := newCase(spam("SL_SHORT", 1))
	c.Local, c.Direction = true, envelope.Outbound
	c.Envelope.Sender.Address, c.Author = addr("root@host.example.net"), addr("root@host.example.net")
	d := policy.Decide(c, rcpt("root@host.example.net"), p)
	o := policy.Combine(c, []verdict.Decision{d}, []*policy.Effective{p}, noStore)
	if told(o) != "ok [accept]" || !o.Bearing.Outbound {
		t.Errorf("%s, bears %+v", told(o), o.Bearing)
	}
}

// TestFieldTwoRecipientsTwoFates: only the first recipient was served, or one
// refusal took the mail from all.
func TestFieldTwoRecipientsTwoFates(t *testing.T) {
	s := load(t, `
  - {match: "@c62.example.net", banned_action: reject}
  - {match: "open@c62.example.net", banned_action: tag}
  - {match: "hold@c62.example.net", banned_action: quarantine}
  - {match: "later@c62.example.net", banned_action: tempfail}
`)
	for _, tt := range []struct {
		name, rcpts string
		can         policy.Capabilities
		want        string
	}{
		{"delivered to one, the other taken off and kept", "open kim", withStore, "ok -kim@c62 keepb! split1 [tag quarantine]"},
		{"the same until there is a store", "open kim", noStore, "550 split1 [reject reject]"},
		{"held for one", "open hold", withStore, "ok -hold@c62 keepb! [tag quarantine]"},
		{"two who reject", "kim lee", withStore, "550 keepa keepb [reject reject]"},
		{"with one who says tempfail", "open kim later", withStore, "451 [tempfail tempfail tempfail]"},
		{"with one who says tempfail, until there is a store", "open later", noStore, "451 [tempfail tempfail]"},
	} {
		c := newCase(banned)
		var ds []verdict.Decision
		var ps []*policy.Effective
		for who := range strings.FieldsSeq(tt.rcpts) {
			r := rcpt(who + "@c62.example.net")
			p := s.Inbound(r.Address)
			ds, ps = append(ds, policy.Decide(c, r, p)), append(ps, p)
		}
		if got := strings.ReplaceAll(told(policy.Combine(c, ds, ps, tt.can)), ".example.net", ""); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}
