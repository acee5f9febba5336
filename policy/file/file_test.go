package file_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/envelope"
	"sluice/internal/strictyaml"
	"sluice/internal/verdict"
	"sluice/policy"
	"sluice/policy/file"
)

// all is a build that has everything.
var all = map[string]bool{"attachment": true, "bayes": true, "sender": true, policy.NeedsStore: true, policy.NeedsRedirect: true}

func TestEveryFieldIsRead(t *testing.T) {
	const text = `
policies:
  - match: "=gold"
    subject_tag: "[GOLD] "
  - match: "@Example.ORG"
    direction: inbound
    like: gold
    scan_virus: false
    scan_spam: true
    scan_attachments: false
    tag_score: -1.5
    mark_score: 4
    kill_score: 10
    virus_action: discard
    banned_action: quarantine
    ambiguous_action: redirect
    spam_action: tag
    failed_action: accept
    unchecked_action: reject
    marked_action: tempfail
    failed_after: 1h30m
    failed_final_action: tag
    quarantine: [virus, marked]
    quarantine_days: 7
    unchecked_subject_tag: "[?] "
    reject_text: "100% of programs"
    redirect_to: box@example.net
    allow_senders: {example.com: -5, "@.EXAMPLE.net": {score: -3, unauthenticated: true, final: true}, "x@example.com": null}
    deny_senders:
      bad@example.com: 7.5
    banned_names: ["@executables", "!good.exe", "*.j[sv]*"]
    banned_types: [Application/X-MSDownload]
    max_size: 10MiB
    symbol_scores: {SL_ONE: 0.1, SL_TWO: null}
    bayes_scope: domain
    dmarc_action: quarantine
    rate_limit: 100
    observe: true
`
	s, problems := file.Parse("policy.yaml", []byte(text), file.Options{Built: all, Delimiters: "+", Generation: 7})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if s.Generation != 7 || s.Len() != 2 {
		t.Errorf("generation %d, %d policies", s.Generation, s.Len())
	}
	e := s.Inbound(envelope.Parse("u@example.org"))
	want := map[string]string{
		"scan_virus": "false", "scan_spam": "true", "scan_attachments": "false",
		"tag_score": "-1.5", "mark_score": "4", "kill_score": "10",
		"virus_action": "discard", "banned_action": "quarantine", "ambiguous_action": "redirect", "spam_action": "tag",
		"failed_action": "accept", "unchecked_action": "reject", "marked_action": "tempfail",
		"failed_after": "1h30m", "failed_final_action": "tag", "quarantine": "[virus, marked]", "quarantine_days": "7",
		"subject_tag": `"[GOLD] "`, "unchecked_subject_tag": `"[?] "`, "reject_text": `"100% of programs"`, "redirect_to": "box@example.net",
		"allow_senders": `{"@.example.net": {score: -3, unauthenticated: true, final: true}, "@example.com": -5}`,
		"deny_senders":  `{"bad@example.com": 7.5}`,
		"banned_names":  `["@executables", "!good.exe", "*.j[sv]*"]`, "banned_types": "[application/x-msdownload]", "max_size": "10MiB",
		"symbol_scores": "{SL_ONE: 0.1}", "bayes_scope": "domain", "dmarc_action": "quarantine", "rate_limit": "100", "observe": "true",
	}
	for _, r := range e.Rows(all) {
		if r.Value != want[r.Key] {
			t.Errorf("%s = %s, want %s", r.Key, r.Value, want[r.Key])
		}
		origin := "@example.org"
		if r.Key == "subject_tag" {
			origin = "@example.org (like =gold)"
		}
		if r.Origin != origin {
			t.Errorf("%s comes from %s, want %s", r.Key, r.Origin, origin)
		}
		delete(want, r.Key)
	}
	if len(want) > 0 {
		t.Errorf("no rows for %v", want)
	}
}

// TestMistakes: each one is told with line, column, key and remedy, and alone.
func TestMistakes(t *testing.T) {
	const head = "policies:\n  - match: \"@example.org\"\n"
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", head + "    spam_acton: tag\n", "3:5: policies[0].spam_acton: unknown key; did you mean spam_action?"},
		{"unknown key far from all", head + "    zzzzzzzzzz: tag\n", "3:5: policies[0].zzzzzzzzzz: unknown key; known here: match, direction, like"},
		{"unknown key at the top", "polices: []\n", "1:1: polices: unknown key; did you mean policies?"},
		{"wrong type: bool", head + "    scan_spam: yes\n", "3:16: policies[0].scan_spam: wants true or false"},
		{"wrong type: number", head + "    mark_score: high\n", "3:17: policies[0].mark_score: wants a number, but this is text"},
		{"wrong type: quoted number", head + "    mark_score: \"5\"\n", "3:17: policies[0].mark_score: wants a number, but this is text; write it as 5"},
		{"wrong type: list", head + "    quarantine: virus\n", "3:17: policies[0].quarantine: wants a list"},
		{"wrong type: map", head + "    allow_senders: [a@example.com]\n", "3:20: policies[0].allow_senders: wants keys with values"},
		{"wrong type: text", head + "    subject_tag: 5\n", "3:18: policies[0].subject_tag: wants text"},
		{"wrong type: whole number", head + "    quarantine_days: 1.5\n", "3:22: policies[0].quarantine_days: \"1.5\" is not a whole number"},
		{"wrong type: policy", "policies:\n  - example.org\n", "2:5: policies[0]: wants a policy, but this is text"},
		{"no value", head + "    spam_action:\n", "3:18: policies[0].spam_action: has no value; write an action, or leave the line out"},
		{"score not a number", head + "    mark_score: .nan\n", "3:17: policies[0].mark_score: \".nan\" is not a score"},
		{"score too large", head + "    kill_score: 1000000000000\n", "3:17: policies[0].kill_score: \"1000000000000\" is not a score"},
		{"bad duration", head + "    failed_after: soon\n", "3:19: policies[0].failed_after: \"soon\" is not a duration; write it as 90s"},
		{"duration without unit", head + "    failed_after: 90\n", "3:19: policies[0].failed_after: \"90\" is not a duration; a number needs its unit"},
		{"bad size", head + "    max_size: 10XB\n", "3:15: policies[0].max_size: \"10XB\" is not a size"},
		{"bad match", "policies:\n  - match: \"example.org\"\n", "2:12: policies[0].match: \"example.org\" is no match; write user@example.org"},
		{"bad match: domain", "policies:\n  - match: \"u@exa mple.org\"\n", "2:12: policies[0].match: \"u@exa mple.org\" is no match"},
		{"match missing", "policies:\n  - spam_action: tag\n", "2:5: policies[0]: this policy has no match"},
		{"bad direction", head + "    direction: in\n", "3:16: policies[0].direction: unknown direction \"in\"; inbound or outbound"},
		{"bad address", head + "    redirect_to: nobody\n", "3:18: policies[0].redirect_to: \"nobody\" is no mail address; write it as user@example.org"},
		{"bad sender", head + "    deny_senders: {\"a b\": 5}\n", "3:20: policies[0].deny_senders.\"a b\": \"a b\" is no sender; write user@example.org"},
		{"sender twice", head + "    deny_senders: {example.com: 5, \"@Example.com\": 6}\n", "policies[0].deny_senders"},
		{"allow entry that denies", head + "    allow_senders: {example.com: 5}\n", "would make the mail worse; write a number of 0 or less"},
		{"deny entry that allows", head + "    deny_senders: {\"@example.com\": -5}\n", "3:36: policies[0].deny_senders.\"@example.com\": a deny entry of -5 would make the mail better"},
		{"sender without score", head + "    deny_senders: {\"@example.com\": {unauthenticated: true}}\n", "has no score"},
		{"sender with unknown key", head + "    deny_senders: {\"@example.com\": {score: 1, finl: true}}\n", "3:47: policies[0].deny_senders.\"@example.com\".finl: unknown key; did you mean final?"},
		{"duplicate key", head + "    spam_action: tag\n    spam_action: reject\n", "4:5: policies[0].spam_action: stands twice, first in line 3; remove one of the two"},
		{"duplicate policy", head + "  - match: \"@EXAMPLE.org\"\n", "3:12: policies[1].match: there are two inbound policies for @example.org; make one of the two"},
		{"unknown action", head + "    spam_action: quarentine\n", "3:18: policies[0].spam_action: unknown action \"quarentine\"; did you mean quarantine?"},
		{"unknown action far from all", head + "    spam_action: bounce\n", "unknown action \"bounce\"; one of accept, tag, redirect"},
		{"unknown class", head + "    quarantine: [virus, wurm]\n", "3:25: policies[0].quarantine[1]: unknown class \"wurm\"; one of marked"},
		{"clean is no class to keep", head + "    quarantine: [clean]\n", "3:18: policies[0].quarantine[0]: clean mail isn't kept; one of virus"},
		{"class twice", head + "    quarantine: [virus, virus]\n", "3:25: policies[0].quarantine[1]: virus stands twice"},
		{"thresholds: kill below mark", head + "    mark_score: 9\n    kill_score: 8\n", "3:17: policies[0].mark_score: thresholds out of order: mark_score 9 is above kill_score 8"},
		{"unknown like", head + "    like: gold\n", "3:11: policies[0].like: there is no plan \"gold\" for inbound mail; write the plan as a policy with match: \"=gold\""},
		{"like of the other direction", head + "    like: gold\n  - match: \"=gold\"\n    direction: outbound\n", "3:11: policies[0].like: there is no plan \"gold\" for inbound mail"},
		{"like of another plan", "policies:\n  - match: \"=a\"\n  - match: \"=b\"\n    like: a\n", "4:11: policies[1].like: a plan can't be like another one"},
		{"bad name of a plan", "policies:\n  - match: \"=a b\"\n", "2:12: policies[0].match: \"a b\" is no name of a plan; 1 to 64 letters"},
		{"bad glob", head + "    banned_names: [\"*.[ex\"]\n", "3:20: policies[0].banned_names[0]: bad glob \"*.[ex\""},
		{"unknown set", head + "    banned_names: [\"@programs\"]\n", "3:20: policies[0].banned_names[0]: unknown set \"@programs\"; one of @executables"},
		{"bad MIME type", head + "    banned_types: [exe]\n", "3:20: policies[0].banned_types[0]: \"exe\" is no MIME type"},
		{"bad scope", head + "    bayes_scope: all\n", "3:18: policies[0].bayes_scope: unknown scope \"all\"; one of global, domain, user"},
		{"bad symbol", head + "    symbol_scores: {\"A B\": 1}\n", "\"A B\" is no symbol"},
		{"symbol without number", head + "    symbol_scores: {A: x}\n", "3:24: policies[0].symbol_scores.A: wants a number"},
		{"negative number", head + "    rate_limit: -1\n", "3:17: policies[0].rate_limit: -1 is out of bounds"},
		{"days out of bounds", head + "    quarantine_days: 40000\n", "3:22: policies[0].quarantine_days: 40000 is out of bounds; write 0 to 36500"},
		{"8-bit reply", head + "    reject_text: \"Prüfung\"\n", "3:18: policies[0].reject_text: the text is not plain ASCII"},
		{"reply of two lines", head + "    reject_text: \"a\\r\\n250 ok\"\n", "3:18: policies[0].reject_text: the text has line ends"},
		{"reply too long", head + "    reject_text: \"" + strings.Repeat("a", 301) + "\"\n", "the text is longer than 300 bytes"},
		{"tag of two lines", head + "    subject_tag: \"a\\nX-Evil: 1\"\n", "3:18: policies[0].subject_tag: the text has line ends"},
		{"alias", head + "    subject_tag: *x\n", "aliases"},
		{"too deep", "policies: " + strings.Repeat("[", 200) + strings.Repeat("]", 200), "nested"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, problems := file.Parse("policy.yaml", []byte(tt.text), file.Options{Built: all})
			if s != nil || len(problems) != 1 {
				t.Fatalf("want one problem and no snapshot, got %v:\n%v", s, problems)
			}
			if got := problems[0].String(); !strings.HasPrefix(got, "policy.yaml:") || !strings.Contains(got, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestAllMistakesAtOnce: none hides another.
func TestAllMistakesAtOnce(t *testing.T) {
	const text = `policies:
  - match: "@."
    spam_acton: tag
    mark_score: high
  - match: "not an address"
    failed_after: 5
  - match: "@example.org"
    max_size: 1XB
    like: nowhere
    spam_action: kill
    spam_action: tag
  - match: "@example.org"
    banned_names: ["["]
    mark_score: 30
    kill_score: 20
extra: 1
`
	_, problems := file.Parse("p.yaml", []byte(text), file.Options{})
	var at []string
	for _, p := range problems {
		at = append(at, fmt.Sprintf("%d:%d", p.Line, p.Column))
	}
	want := []string{"3:5", "4:17", "5:12", "6:19", "8:15", "9:11", "10:18", "11:5", "12:12", "13:20", "14:17", "16:1"}
	if !slices.Equal(at, want) {
		t.Errorf("problems at %v, want %v:\n%v", at, want, problems)
	}
}

// TestActionsThatNeedTheStore: quarantine and redirect are mistakes where they are
// written down; as built-in values they are not.
func TestActionsThatNeedTheStore(t *testing.T) {
	for _, f := range policy.Fields() {
		if f.Type != policy.TypeAction {
			continue
		}
		for _, a := range []string{"quarantine", "redirect"} {
			text := "policies:\n  - match: \"@.\"\n    " + f.Key + ": " + a + "\n"
			_, problems := file.Parse("p", []byte(text), file.Options{Built: map[string]bool{"sender": true}})
			if len(problems) != 1 || !strings.Contains(problems[0].Message, "needs a store") || problems[0].Line != 3 {
				t.Errorf("%s: %s: %v", f.Key, a, problems)
			}
			if _, problems := file.Parse("p", []byte(text), file.Options{Built: all}); problems != nil {
				t.Errorf("%s: %s with a store: %v", f.Key, a, problems)
			}
		}
	}
	if _, problems := file.Parse("p", []byte("policies: []\n"), file.Options{}); problems != nil {
		t.Error(problems)
	}
}

// TestFieldsWithoutEffect: accepted, and told once each.
func TestFieldsWithoutEffect(t *testing.T) {
	const text = `policies:
  - match: "@."
    scan_attachments: false
    quarantine: [virus]
    redirect_to: a@example.org
    max_size: 1MiB
    dmarc_action: reject
  - match: "@example.org"
    bayes_scope: user
    quarantine: []
`
	var told []string
	s, problems := file.Parse("p", []byte(text), file.Options{Notice: func(p strictyaml.Problem) { told = append(told, p.String()) }})
	if problems != nil {
		t.Fatal(problems)
	}
	slices.Sort(told)
	want := []string{
		"p:3:5: policies[0].scan_attachments: no effect in this build (needs attachment)",
		"p:4:5: policies[0].quarantine: no effect in this build (needs store)",
		"p:5:5: policies[0].redirect_to: no effect in this build (needs redirect)",
		"p:7:5: policies[0].dmarc_action: no effect in this build (needs sender)",
		"p:9:5: policies[1].bayes_scope: no effect in this build (needs bayes)",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(told, "\n"), strings.Join(want, "\n"))
	}
	if got := s.Unused(nil); !slices.Equal(got, []string{"scan_attachments", "quarantine", "redirect_to", "bayes_scope", "dmarc_action"}) {
		t.Error(got)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	if _, problems := file.Load(path, file.Options{}); len(problems) != 1 || problems[0].Message != "no such file" || problems[0].File != path {
		t.Errorf("absent: %v", problems)
	}
	s, problems := file.Load(path, file.Options{Optional: true})
	if problems != nil || s.Inbound(envelope.Parse("a@example.org")).MarkScore != 5*verdict.Point {
		t.Errorf("absent and optional: %v", problems)
	}
	if _, problems := file.Load(dir, file.Options{Optional: true}); len(problems) != 1 {
		t.Errorf("a folder: %v", problems)
	}
	if err := os.WriteFile(path, []byte("policies:\n  - {match: \"@.\", mark_score: 6.0}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, problems = file.Load(path, file.Options{})
	if problems != nil || s.Inbound(envelope.Parse("a@example.org")).MarkScore != 6*verdict.Point {
		t.Errorf("present: %v", problems)
	}
}

func TestEmptyFiles(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "policies: []\n"} {
		if s, problems := file.Parse("p", []byte(text), file.Options{}); problems != nil || s.Len() != 0 {
			t.Errorf("%q: %v", text, problems)
		}
	}
}

// TestThresholdsAgainstWhatIsInherited: a lone kill_score below the inherited
// mark_score means what it says; somebody is told, and nobody's policies stop.
func TestThresholdsAgainstWhatIsInherited(t *testing.T) {
	const head = "policies:\n  - match: \"@example.org\"\n"
	for _, c := range []struct{ name, text, want string }{
		{"the default", head + "    kill_score: 4\n", "p:3:17: policies[0].kill_score: thresholds out of order: kill_score 4 is below mark_score 5 (built-in defaults)"},
		{"tag above mark", head + "    tag_score: 6\n", "tag_score 6 is above mark_score 5"},
		{"the chain", "policies:\n  - match: \"@.\"\n    kill_score: 10\n  - match: \"u@example.org\"\n    mark_score: 11\n",
			"p:5:17: policies[1].mark_score: thresholds out of order: mark_score 11 is above kill_score 10 (@.)"},
		{"a plan", "policies:\n  - match: \"=p\"\n    mark_score: 11\n  - match: \"@example.org\"\n    like: p\n  - match: \"@.\"\n    kill_score: 10\n",
			"p:5:11: policies[1].like: thresholds out of order: mark_score 11 is above kill_score 10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var told []string
			s, problems := file.Parse("p", []byte(c.text), file.Options{Notice: func(p strictyaml.Problem) { told = append(told, p.String()) }})
			if problems != nil || s == nil {
				t.Fatalf("refused: %v", problems)
			}
			if len(told) != 1 || !strings.Contains(told[0], c.want) {
				t.Errorf("told %q, want %q", told, c.want)
			}
		})
	}
}
