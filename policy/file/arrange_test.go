package file_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/internal/strictyaml"
	"sluice/policy/file"
)

// mistakes are lines of a policy, two of each kind, each with the start of what is to be
// told of it. One without a line, or with the line before, belongs to that one.
var mistakes = []struct{ line, want string }{
	{`sapm_action: tag`, "sapm_action: unknown key"},
	{`observ: true`, "observ: unknown key"},
	{`scan_spam: "yes"`, "scan_spam: wants true or false"},
	{`subject_tag: 5`, "subject_tag: wants text"},
	{`failed_after: 4 hours`, `failed_after: "4 hours" is not a duration`},
	{`max_size: 10 megs`, `max_size: "10 megs" is not a size`},
	{`redirect_to: nobody at example.org`, `redirect_to: "nobody at example.org" is no mail address`},
	{`spam_action: bounce`, `spam_action: unknown action "bounce"`},
	{`virus_action: rejct`, `virus_action: unknown action "rejct"`},
	{`like: platinum`, `like: there is no plan "platinum"`},
	{`banned_names: ["[a-", 5, "x["]`, `banned_names[0]: bad glob "[a-"`},
	{``, `banned_names[1]: wants text`},
	{``, `banned_names[2]: bad glob "x["`},
	{`banned_types: [exe, [], "x/y z"]`, `banned_types[0]: "exe" is no MIME type`},
	{``, `banned_types[1]: wants text`},
	{``, `banned_types[2]: "x/y z" is no MIME type`},
	{`quarantine: [wurm, clean, virus, virus]`, `quarantine[0]: unknown class "wurm"`},
	{``, `quarantine[1]: clean mail isn't kept`},
	{``, `quarantine[3]: virus stands twice`},
	{`allow_senders: {a@example.com: 5, b@example.com: high, "c d": low}`, `allow_senders."a@example.com": an allow entry of 5`},
	{``, `allow_senders."b@example.com": wants a number`},
	{``, `allow_senders."c d": "c d" is no sender`},
	{``, `allow_senders."c d": wants a number`},
	{`symbol_scores: {"A B": 1, SL_ONE: x}`, `symbol_scores."A B": "A B" is no symbol`},
	{``, `symbol_scores.SL_ONE: wants a number`},
	{`rate_limit: -1`, `rate_limit: -1 is out of bounds`},
	{`reject_text: "ü"`, `reject_text: the text is not plain ASCII`},
	{`mark_score: 9`, `mark_score: thresholds out of order: mark_score 9 is above kill_score 4; keep`},
	{`kill_score: 4`, ``},
	{`unchecked_action: tag`, ``},
	{`unchecked_action: tag`, `unchecked_action: stands twice`},
}

// TestArrangements: each mistake is told, at its place and once, whether all stand in one
// policy or each in one of its own, whether that policy's match and direction can be read
// or not.
func TestArrangements(t *testing.T) {
	for _, head := range []struct{ name, lines, want string }{
		{"a good match", `match: "@%d.example.org"`, ""},
		{"a bad match", `match: "no address %d"`, `match: "no address %d" is no match`},
		{"a match of the wrong type", `match: [%d]`, `match: wants an address`},
		{"a match twice", "match: \"@%[1]d.example.org\"\n    match: \"@x%[1]d.example.org\"", `match: stands twice`},
		{"a bad direction", "match: \"@%d.example.org\"\n    direction: in", `direction: unknown direction "in"`},
		{"an alias for a match", "match: *m%d", `match: anchors and aliases`},
		{"no match", "direction: inbound # %d", `: this policy has no match`},
	} {
		for _, one := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, in one policy %v", head.name, one), func(t *testing.T) {
				var text strings.Builder
				var want []string
				text.WriteString("policies:\n")
				policies := 0
				begin := func() {
					fmt.Fprintf(&text, "  - "+head.lines+"\n", policies)
					if head.want != "" {
						w := head.want
						if strings.Contains(w, "%d") {
							w = fmt.Sprintf(w, policies)
						}
						want = append(want, fmt.Sprintf("policies[%d]", policies)+strings.Replace("."+w, ".:", ":", 1)) // no match has no key
					}
					policies++
				}
				for i, m := range mistakes {
					follows := m.line == "" || strings.HasPrefix(m.line, "kill_score") || i > 0 && m.line == mistakes[i-1].line
					if i == 0 || !one && !follows {
						begin()
					}
					if m.line != "" {
						text.WriteString("    " + m.line + "\n")
					}
					if m.want != "" {
						want = append(want, fmt.Sprintf("policies[%d].%s", policies-1, m.want))
					}
				}
				_, problems := file.Parse("p", []byte(text.String()), file.Options{Built: all})
				for _, w := range want {
					n := slices.IndexFunc(problems, func(p strictyaml.Problem) bool {
						return strings.HasPrefix(strings.TrimPrefix(p.String(), fmt.Sprintf("p:%d:%d: ", p.Line, p.Column)), w)
					})
					if n < 0 {
						t.Errorf("not told: %s", w)
						continue
					}
					if problems[n].Line == 0 || problems[n].Column == 0 {
						t.Errorf("without a place: %v", problems[n])
					}
					problems = slices.Delete(problems, n, n+1)
				}
				for _, p := range problems {
					t.Errorf("told as well: %v", p)
				}
				if t.Failed() {
					t.Log(text.String())
				}
			})
		}
	}
}

// TestThresholdsAndWhatCannotBeRead: thresholds of a policy are compared unless one of its
// own could not be read.
func TestThresholdsAndWhatCannotBeRead(t *testing.T) {
	const out = "thresholds out of order"
	for _, c := range []struct {
		name, lines string
		out         int
	}{
		{"alone", "mark_score: 9\n    kill_score: 4", 1},
		{"beside another mistake", "observ: true\n    mark_score: 9\n    kill_score: 4", 1},
		{"both pairs", "tag_score: 10\n    mark_score: 9\n    kill_score: 4", 2},
		{"no mark_score would do", "tag_score: 9\n    kill_score: 4", 1},
		{"a mark_score that can't be read", "tag_score: 9\n    mark_score: high\n    kill_score: 4", 0},
		{"a kill_score that can't be read", "mark_score: 20\n    kill_score: \"30\"", 0},
		{"a tag_score that is an alias", "tag_score: *x\n    mark_score: 20\n    kill_score: 10", 0},
		{"in order", "tag_score: 1\n    mark_score: 2\n    kill_score: 3", 0},
	} {
		for _, match := range []string{"@example.org", "=plan", "no match"} {
			_, problems := file.Parse("p", []byte("policies:\n  - match: \""+match+"\"\n    "+c.lines+"\n"), file.Options{Built: all})
			n := 0
			for _, p := range problems {
				if strings.Contains(p.Message, out) {
					n++
				}
			}
			if n != c.out {
				t.Errorf("%s, %s: told %d times, want %d: %v", c.name, match, n, c.out, problems)
			}
		}
	}
}

// TestNoticesBesideMistakes: what is only worth knowing is told also when there are
// mistakes, with its place, and not of policies whose own thresholds can't be read.
func TestNoticesBesideMistakes(t *testing.T) {
	const text = `policies:
  - match: "@example.org"
    kill_score: 4
    spam_action: bounce
  - match: "@example.com"
    kill_score: 3
    tag_score: low
  - match: "no match"
    kill_score: 2
  - match: "@example.net"
    quarantine_days: 5
`
	var told []string
	_, problems := file.Parse("p", []byte(text), file.Options{Notice: func(p strictyaml.Problem) { told = append(told, p.String()) }})
	if len(problems) != 3 {
		t.Errorf("problems %v", problems)
	}
	want := []string{
		"p:11:5: policies[3].quarantine_days: no effect in this build (needs store)",
		"p:3:17: policies[0].kill_score: thresholds out of order: kill_score 4 is below mark_score 5 (built-in defaults)",
	}
	slices.Sort(told)
	if len(told) != len(want) {
		t.Fatalf("told %q", told)
	}
	for i := range want {
		if !strings.HasPrefix(told[i], want[i]) {
			t.Errorf("told %q, want %q", told[i], want[i])
		}
	}
}

// TestPlansOfUnknownDirection: a plan whose direction can't be read isn't said to be
// missing, nor are two policies said to be one.
func TestPlansOfUnknownDirection(t *testing.T) {
	const text = `policies:
  - match: "=gold"
    direction: inwards
  - match: "@example.org"
    like: gold
  - match: "=silver"
    direction: outbound
  - match: "@example.com"
    direction: outwards
    like: silver
  - match: "@example.com"
    like: silver
  - match: "@example.net"
    direction: outwards
    like: lead
`
	_, problems := file.Parse("p", []byte(text), file.Options{})
	var at []string
	for _, p := range problems {
		at = append(at, p.Key)
	}
	want := []string{"policies[0].direction", "policies[3].direction", "policies[4].like", "policies[5].direction", "policies[5].like"}
	if !slices.Equal(at, want) {
		t.Errorf("%v", problems)
	}
}

// TestNoticesAreBounded: however many policies are worth a word.
func TestNoticesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString("policies:\n")
	for i := range 3 * strictyaml.MaxProblems {
		fmt.Fprintf(&b, "  - {match: \"@%d.example.org\", kill_score: 4}\n", i)
	}
	n := 0
	if _, problems := file.Parse("p", []byte(b.String()), file.Options{Notice: func(strictyaml.Problem) { n++ }}); problems != nil || n != strictyaml.MaxProblems {
		t.Errorf("%d notices, %v", n, problems)
	}
}
