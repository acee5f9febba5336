package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
	"sluice/policy"
	"sluice/policy/file"
)

// built is a build that has everything.
var built = map[string]bool{"attachment": true, "bayes": true, "sender": true, policy.NeedsStore: true, policy.NeedsRedirect: true}

// load reads policies as they stand in a file; text is the list.
func load(t testing.TB, text string) *policy.Snapshot {
	t.Helper()
	s, problems := file.Parse("policy.yaml", []byte("policies:\n"+text), file.Options{Built: built, Delimiters: "+"})
	if problems != nil {
		t.Fatal(problems)
	}
	return s
}

// one reads a single policy for everyone; fields are lines of key: value.
func one(t testing.TB, fields ...string) *policy.Effective {
	t.Helper()
	return load(t, "  - match: \"@.\"\n    "+strings.Join(fields, "\n    ")+"\n").Inbound(addr("kim@example.net"))
}

func addr(s string) envelope.Address { return envelope.Parse(s) }

// TestLookUpOrder: each field comes from the first of DESIGN §4's list that sets
// it. Each step takes the most specific policy away.
func TestLookUpOrder(t *testing.T) {
	order := []string{"user+ext@sub.example.org", "user@sub.example.org", "@sub.example.org", "@.sub.example.org", "@.example.org", "@.org", "@."}
	for i := range order {
		var b strings.Builder
		for n, m := range order[i:] {
			fmt.Fprintf(&b, "  - match: %q\n    quarantine_days: %d\n", m, i+n)
		}
		e := load(t, b.String()).Inbound(addr("User+Ext@SUB.Example.org"))
		if e.QuarantineDays != i || e.Origin("quarantine_days") != order[i] {
			t.Errorf("from %s on: %d from %s", order[i], e.QuarantineDays, e.Origin("quarantine_days"))
		}
		if got := e.Chain(); !slices.Equal(got, order[i:]) {
			t.Errorf("chain %v, want %v", got, order[i:])
		}
	}
	e := load(t, "  - match: \"@example.com\"\n    quarantine_days: 1\n").Inbound(addr("user@sub.example.org"))
	if e.QuarantineDays != 30 || e.Origin("quarantine_days") != policy.BuiltIn || len(e.Chain()) != 0 {
		t.Errorf("nothing matches: %d from %s", e.QuarantineDays, e.Origin("quarantine_days"))
	}
}

func TestMatches(t *testing.T) {
	s := load(t, `
  - {match: "@example.org", quarantine_days: 1}
  - {match: "@.example.org", quarantine_days: 2}
  - {match: "@bücher.example", quarantine_days: 3}
  - {match: "@[192.0.2.1]", quarantine_days: 4}
  - {match: "Info@Example.com", quarantine_days: 5}
`)
	for _, tt := range []struct {
		name, address string
		days          int
		has           bool
	}{
		{"that domain alone", "a@example.org", 1, true},
		{"below it", "a@sub.example.org", 2, true},
		{"far below it", "a@b.sub.example.org", 2, true},
		{"only ends alike", "a@anexample.org", 30, false},
		{"above it", "a@org", 30, false},
		{"U-label", "a@BÜCHER.example", 3, true},
		{"A-label", "a@xn--bcher-kva.example", 3, true},
		{"domain literal", "a@[192.0.2.1]", 4, true},
		{"address in any case", "INFO@EXAMPLE.COM", 5, true},
		{"extension falls back", "info+list@example.com", 5, true},
		{"other address", "infos@example.com", 30, false},
		{"null address", "", 30, false},
		{"no domain", "root", 30, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if e := s.Inbound(addr(tt.address)); e.QuarantineDays != tt.days {
				t.Errorf("%d days, want %d", e.QuarantineDays, tt.days)
			}
			if got := s.HasInbound(addr(tt.address)); got != tt.has {
				t.Errorf("HasInbound = %v", got)
			}
		})
	}
}

func TestFieldWiseInheritance(t *testing.T) {
	s := load(t, `
  - match: "@."
    mark_score: 6
    spam_action: tag
    quarantine: [virus, banned]
    symbol_scores: {A: 1, B: 2, C: 3}
    allow_senders: {a.example: -1, b.example: -2}
  - match: "@example.org"
    spam_action: discard
    quarantine: []
    symbol_scores: {B: 20, C: null, D: 4}
  - match: "u@example.org"
    mark_score: 7
    symbol_scores: {C: 30}
    allow_senders: {b.example: null}
`)
	e := s.Inbound(addr("u@example.org"))
	if e.MarkScore != 7*verdict.Point || e.Actions[verdict.ClassSpam] != verdict.Discard || e.KillScore != 15*verdict.Point {
		t.Errorf("mark %v, spam %v, kill %v", e.MarkScore, e.Actions[verdict.ClassSpam], e.KillScore)
	}
	if len(e.Quarantine) != 0 {
		t.Errorf("lists replace, also with an empty one: %v", e.Quarantine)
	}
	rows := map[string]policy.Row{}
	for _, r := range e.Rows(nil) {
		rows[r.Key] = r
	}
	for key, want := range map[string][2]string{
		"symbol_scores": {"{A: 1, B: 20, C: 30, D: 4}", "u@example.org, @example.org, @."},
		"allow_senders": {`{"@a.example": -1}`, "u@example.org, @."},
		"mark_score":    {"7", "u@example.org"}, "spam_action": {"discard", "@example.org"},
		"kill_score": {"15", policy.BuiltIn}, "quarantine": {"[]", "@example.org"}, "deny_senders": {"{}", policy.BuiltIn},
	} {
		if got := rows[key]; got.Value != want[0] || got.Origin != want[1] {
			t.Errorf("%s = %s from %s, want %s from %s", key, got.Value, got.Origin, want[0], want[1])
		}
	}
	if _, ok := rows["like"]; ok {
		t.Error("like is no value of its own")
	}
	d := s.Inbound(addr("other@example.org"))
	if v, ok := d.SymbolScores.Get("C"); ok {
		t.Errorf("null removes an inherited key: C = %v", v)
	}
	if v, _ := s.Inbound(addr("x@example.net")).SymbolScores.Get("B"); v != 2*verdict.Point {
		t.Errorf("a more specific map changed a more general one: %v", v)
	}
}

func TestPlans(t *testing.T) {
	s := load(t, `
  - {match: "=gold", mark_score: 4, spam_action: discard, subject_tag: "gold"}
  - {match: "=gold", direction: outbound, mark_score: 3}
  - {match: "@.", mark_score: 7, kill_score: 20, subject_tag: "all"}
  - {match: "@example.org", like: gold, spam_action: tag}
  - {match: "u@example.org", reject_text: "mine"}
  - {match: "@example.net", direction: outbound, like: gold}
`)
	e := s.Inbound(addr("u@example.org"))
	if e.Actions[verdict.ClassSpam] != verdict.Tag || e.MarkScore != 4*verdict.Point || e.KillScore != 20*verdict.Point || e.SubjectTag != "gold" || e.RejectText != "mine" {
		t.Errorf("the policy's own field, then the plan's, then more general ones: %+v", e)
	}
	if got, want := e.Origin("mark_score"), "@example.org (like =gold)"; got != want {
		t.Errorf("origin %q, want %q", got, want)
	}
	if got, want := e.Chain(), []string{"u@example.org", "@example.org", "@example.org (like =gold)", "@."}; !slices.Equal(got, want) {
		t.Errorf("chain %v", got)
	}
	if e := s.Inbound(addr("gold@example.com")); e.MarkScore != 7*verdict.Point {
		t.Error("a plan applies to nobody by itself")
	}
	if e := s.Inbound(addr("=gold")); e.MarkScore != 7*verdict.Point {
		t.Error("a plan's name is nobody's address")
	}
	if e := s.Outbound(addr("u@example.net")); e.MarkScore != 3*verdict.Point || e.Direction != envelope.Outbound {
		t.Errorf("outbound plans are apart: %v", e.MarkScore)
	}
}

func TestDirectionsAreApart(t *testing.T) {
	s := load(t, `
  - {match: "@example.org", mark_score: 1}
  - {match: "@example.org", direction: outbound, mark_score: 2}
  - {match: "@.", direction: outbound, mark_score: 3}
`)
	for _, tt := range []struct {
		name string
		e    *policy.Effective
		mark verdict.Score
	}{
		{"inbound", s.Inbound(addr("a@example.org")), 1},
		{"inbound, nothing matches", s.Inbound(addr("a@example.com")), 5},
		{"outbound", s.Outbound(addr("a@example.org")), 2},
		{"outbound, everyone", s.Outbound(addr("a@example.com")), 3},
		{"outbound, no identity", s.Outbound(envelope.Address{}), 3},
	} {
		if tt.e.MarkScore != tt.mark*verdict.Point {
			t.Errorf("%s: %v", tt.name, tt.e.MarkScore)
		}
	}
	if s.HasInbound(addr("a@example.com")) || !s.HasInbound(addr("a@example.org")) {
		t.Error("HasInbound looks at inbound policies alone")
	}
	only := load(t, "  - {match: \"@.\", mark_score: 3}\n")
	if only.HasInbound(addr("a@example.com")) {
		t.Error("@. is no inbound policy of one's own")
	}
}

func TestIdentity(t *testing.T) {
	for _, tt := range []struct {
		name, login, sender string
		verified            bool
		want                string
	}{
		{"login is an address", "kim@example.org", "lee@example.com", false, "kim@example.org"},
		{"login is a name", "kim", "lee@example.com", false, ""},
		{"login is a name, sender verified", "kim", "lee@example.com", true, "lee@example.com"},
		{"login is an address, sender verified", "kim@example.org", "lee@example.com", true, "kim@example.org"},
		{"no login", "", "lee@example.com", false, ""},
		{"null sender", "", "", true, ""},
	} {
		env := &envelope.Envelope{Login: tt.login, SenderVerified: tt.verified, Sender: envelope.Sender{Address: addr(tt.sender)}}
		if got := policy.Identity(env).String(); got != tt.want {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

func TestNewSnapshotRefuses(t *testing.T) {
	like := func(name string) policy.Policy {
		var p policy.Policy
		if err := p.Set("like", name); err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, tt := range []struct {
		name    string
		entries []policy.Entry
		want    string
	}{
		{"bad match", []policy.Entry{{Match: "example.org"}}, "is no match"},
		{"twice", []policy.Entry{{Match: "@example.org"}, {Match: "@EXAMPLE.org"}}, "two inbound policies"},
		{"unknown plan", []policy.Entry{{Match: "@example.org", Policy: like("x")}}, "no plan"},
		{"plan of a plan", []policy.Entry{{Match: "=y"}, {Match: "=x", Policy: like("y")}}, "plan can't be like"},
	} {
		if s, err := policy.NewSnapshot(tt.entries, policy.SnapshotOptions{}); s != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestPolicySet(t *testing.T) {
	var p policy.Policy
	if err := p.Set("mark_score", 5.0); err == nil {
		t.Error("a value of another type was taken")
	}
	if err := p.Set("marc_score", verdict.Point); err == nil {
		t.Error("an unknown field was taken")
	}
	for _, s := range []verdict.Score{1, 2} {
		if err := p.Set("mark_score", s); err != nil {
			t.Error(err)
		}
	}
	if v, ok := p.Get("mark_score"); v != verdict.Score(2) || !ok {
		t.Error(v)
	}
	if _, ok := p.Get("kill_score"); ok {
		t.Error("unset field is set")
	}
}

// TestTableIsWhole: each field of the table has a type, a meaning and a default of
// that type.
func TestTableIsWhole(t *testing.T) {
	e := policy.Defaults()
	seen := map[string]bool{}
	for _, f := range policy.Fields() {
		if f.Key == "" || f.Doc == "" || seen[f.Key] {
			t.Errorf("row %+v", f)
		}
		seen[f.Key] = true
		if f.Default != nil {
			var p policy.Policy
			if err := p.Set(f.Key, f.Default); err != nil {
				t.Error(err)
			}
		}
		if f.Key != "like" && e.Origin(f.Key) != policy.BuiltIn {
			t.Errorf("%s: %s", f.Key, e.Origin(f.Key))
		}
	}
	if e.Origin("nothing") != "" {
		t.Error("an unknown field has an origin")
	}
}

// TestDefaults are those of DESIGN §4.
func TestDefaults(t *testing.T) {
	want := map[string]string{
		"scan_virus": "true", "scan_spam": "true", "scan_attachments": "true", "tag_score": "-999", "mark_score": "5", "kill_score": "15",
		"virus_action": "reject", "banned_action": "reject", "ambiguous_action": "reject", "spam_action": "reject", "failed_action": "tempfail",
		"unchecked_action": "tag", "marked_action": "tag", "failed_after": "4h", "failed_final_action": "quarantine",
		"quarantine": "[virus, banned, ambiguous, spam]", "quarantine_days": "30", "subject_tag": `""`, "unchecked_subject_tag": `""`,
		"reject_text": `""`, "redirect_to": "", "allow_senders": "{}", "deny_senders": "{}",
		"banned_names": `["@executables", "@scripts", "@disk_images", "@shortcuts"]`, "max_size": "0", "symbol_scores": "{}", "bayes_scope": "global",
		"dmarc_action": "", "rate_limit": "0", "observe": "false",
	}
	for _, r := range policy.Defaults().Rows(nil) {
		if w, ok := want[r.Key]; r.Value != w && ok {
			t.Errorf("%s = %s, want %s", r.Key, r.Value, w)
		}
	}
}

// TestLookUpsAgree holds the cached look-up against a plain one, from several
// goroutines at once.
func TestLookUpsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	labels := []string{"a", "b", "c"}
	domain := func() string {
		d := "example"
		for range rng.IntN(4) {
			d = labels[rng.IntN(3)] + "." + d
		}
		return d
	}
	days := map[string]int{}
	var entries []policy.Entry
	for n := range 60 {
		m := []string{"@.", "@", "@.", "u@", "u+x@"}[rng.IntN(5)] + domain()
		if _, twice := days[m]; twice {
			continue
		}
		var p policy.Policy
		if err := p.Set("quarantine_days", n); err != nil {
			t.Fatal(err)
		}
		days[m], entries = n, append(entries, policy.Entry{Match: m, Policy: p})
	}
	s, err := policy.NewSnapshot(entries, policy.SnapshotOptions{Delimiters: "+"})
	if err != nil {
		t.Fatal(err)
	}
	s.ShrinkCache(7) // chains take each other's places
	var addresses []envelope.Address
	for range 300 {
		addresses = append(addresses, addr([]string{"u", "u+x", "u+y", "v"}[rng.IntN(4)]+"@"+domain()))
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, a := range addresses {
				want := 30
				for _, k := range envelope.Keys(a, "+") {
					if d, ok := days[k]; ok {
						want = d
						break
					}
				}
				if got := s.Inbound(a).QuarantineDays; got != want {
					t.Errorf("%s: %d, want %d", a, got, want)
				}
			}
		})
	}
	wg.Wait()
	if first, again := s.Inbound(addresses[0]), s.Inbound(addresses[0]); first != again {
		t.Error("a policy is made anew at each look-up")
	}
}
