package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProblemsNameLineAndRemedy(t *testing.T) {
	tests := []struct {
		name, cf string
		line     int
		severity Severity
		why      string
		what     string // part of Problem.What
		rule     string
	}{
		{"unknown directive", "\nboddy X /a/\n", 2, Mistake, "syntax", `unknown directive "boddy"`, ""},
		{"no pattern", "body X\n", 1, Mistake, "syntax", "no pattern", "X"},
		{"not a pattern", "body X abc\n", 1, Mistake, "syntax", "no pattern", "X"},
		{"pattern not closed", "body X /abc\n", 1, Mistake, "syntax", "no closing", "X"},
		{"bare hash in a pattern", "body X /a#b/\n", 1, Mistake, "syntax", `# in it is written \#`, "X"},
		{"broken pattern", "body X /a(b/\n", 1, Mistake, "syntax", "no closing parenthesis", "X"},
		{"look-around", "body X /a(?!b)/\n", 1, Unsupported, "regex", "needs look-around", "X"},
		{"bad name", "body 1X /a/\n", 1, Mistake, "syntax", "not a rule's name", ""},
		{"name too long", "body " + strings.Repeat("X", 200) + " /a/\n", 1, Mistake, "syntax", "not a rule's name", ""},
		{"header without operator", "header X Subject /a/\n", 1, Mistake, "syntax", "a header rule reads", "X"},
		{"header with a bad name", "header X Sub\xfcject =~ /a/\n", 1, Mistake, "syntax", "not the name of a header field", "X"},
		{"header with an unknown modifier", "header X From:adr =~ /a/\n", 1, Mistake, "syntax", "unknown modifier :adr", "X"},
		{"header of relays", "header X X-Spam-Relays-External =~ /a/\n", 1, Unsupported, "header", "trail of relays", "X"},
		{"header by trust", "header X ALL-EXTERNAL =~ /a/\n", 1, Unsupported, "header", "trail of relays", "X"},
		{"header modifier of domains", "header X From:domain =~ /a/\n", 1, Unsupported, "header", ":domain", "X"},
		{"eval", "body X eval:check_bayes('0.99', '1.00')\n", 1, Unsupported, "eval", "eval:check_bayes()", "X"},
		{"plugin's rule", "uridnsbl X zen.example.org. A 127.0.0.2\n", 1, Unsupported, "plugin", "uridnsbl", "X"},
		{"plugin's section", "\nifplugin Mail::SpamAssassin::Plugin::DCC\nfull X eval:check_dcc()\nbody Y /b/\nendif\n", 2, Unsupported, "plugin", "plugin DCC isn't in this build: 2 rules", ""},
		{"condition of a later version", "if (version >= 5.0)\nbody X /a/\nendif\n", 1, Unsupported, "plugin", "isn't met: 1 rules", ""},
		{"unreadable condition", "if (colour == 3)\nbody X /a/\nendif\n", 1, Mistake, "syntax", `"colour" is unknown`, ""},
		{"condition left open", "body A /a/\nif (version >= 4)\nbody X /a/\n", 2, Mistake, "syntax", "no endif", ""},
		{"endif alone", "endif\n", 1, Mistake, "syntax", "endif without if", ""},
		{"else alone", "else\n", 1, Mistake, "syntax", "else without if", ""},
		{"score without a value", "body X /a/\nscore X\n", 2, Mistake, "syntax", "one value or four", "X"},
		{"score of two values", "body X /a/\nscore X 1 2\n", 2, Mistake, "syntax", "one value or four", "X"},
		{"score that is no number", "body X /a/\nscore X high\n", 2, Mistake, "syntax", "not a score", "X"},
		{"score that is not finite", "body X /a/\nscore X inf\n", 2, Mistake, "syntax", "not a score", "X"},
		{"score for nothing", "score NOWHERE 3\n", 1, Notice, "undefined", "which no file defines", "NOWHERE"},
		{"priority", "body X /a/\npriority X soon\n", 2, Mistake, "syntax", "not a priority", "X"},
		{"include", "include /etc/passwd\n", 1, Mistake, "syntax", "include is not followed", ""},
		{"setting with a place of its own", "required_score 4\n", 1, Notice, "setting", "required_score", ""},
		{"settings are counted", "whitelist_from a@example.org\nwhitelist_from b@example.org\n", 1, Notice, "setting", "whitelist_from", ""},
		{"meta that can't be read", "body A /a/\nmeta X A &&\n", 2, Mistake, "syntax", "ends too early", "X"},
		{"meta with an operator too many", "body A /a/\nmeta X A A\n", 2, Mistake, "syntax", "not expected here", "X"},
		{"meta with an open parenthesis", "body A /a/\nmeta X (A\n", 2, Mistake, "syntax", "not closed", "X"},
		{"meta with a function", "meta X rules_matching(A*)\n", 1, Unsupported, "function", "rules_matching()", "X"},
		{"meta nested too deep", "meta X " + strings.Repeat("(", 300) + "1" + strings.Repeat(")", 300) + "\n", 1, Mistake, "syntax", "deep", "X"},
		{"meta on what is out", "body A /a(?=b)/\nmeta X A\n", 2, Unsupported, "dependency", "needs A, which is out", "X"},
		{"meta on what is out, through another", "body A /a(?=b)/\nmeta B A\nmeta X B\n", 3, Unsupported, "dependency", "needs B, which is out", "X"},
		{"meta on a hidden rule", "ifplugin Foo\nbody A /a/\nendif\nmeta X A\n", 4, Unsupported, "dependency", "needs A, which is out", "X"},
		{"metas in a circle", "meta A X\nmeta X A\n", 2, Mistake, "dependency", "its own value", "X"},
		{"meta on nothing", "meta X NOWHERE\n", 1, Notice, "undefined", "no file defines NOWHERE", "X"},
		{"tags to be replaced", "body X /<A>b/\nreplace_rules X\n", 1, Unsupported, "plugin", "ReplaceTags", "X"},
		{"line too long", "body X /" + strings.Repeat("a", maxLine) + "/\n", 1, Mistake, "limit", "bytes", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems := load(t, tt.cf, Options{})
			for _, p := range problems {
				if p.Line != tt.line || p.Severity != tt.severity || p.Why != tt.why || p.Rule != tt.rule || !strings.Contains(p.What, tt.what) {
					continue
				}
				if p.Remedy == "" || p.Count < 1 || !strings.HasSuffix(p.File, "local.cf") {
					t.Errorf("incomplete: %+v", p)
				}
				if s := p.String(); !strings.Contains(s, fmt.Sprintf("local.cf:%d: ", tt.line)) || !strings.Contains(s, p.Remedy) {
					t.Errorf("printed %q", s)
				}
				return
			}
			t.Errorf("got %q", problems)
		})
	}
}

func TestGoodLinesHaveNoProblems(t *testing.T) {
	for _, cf := range []string{
		"# a comment\n\n   \t\n",
		"body X /a/ # a comment\ndescribe X Says a\nscore X 1.5\ntflags X nice multiple maxhits=3\npriority X -100\n",
		"body X /a\\#b/i\r\nscore X 0 1 2 3\r\n",
		"lang de describe X Sagt a\nlang\tfr describe X Dit a\n",
		"if (version >= 3.004002) && !plugin(Foo::Bar)\nbody X /a/\nelse\nendif\n",
		"ifplugin Mail::SpamAssassin::Plugin::MIMEHeader\nmimeheader X Content-Type =~ /a/\nendif\n",
		"header X exists:X-Foo\nheader Y From:addr !~ /a/ [if-unset: x@example.org]\n",
		"body A /a/\nbody B /b/\nmeta X (A + B > 1) && !(A == 2) || A * 2 / 3 - 1 >= 0 & 1\n",
		"test X ok a\nrequire_version 3\nreuse X\n",
	} {
		if _, problems := load(t, cf, Options{}); len(problems) > 0 {
			t.Errorf("%q: %v", cf, problems)
		}
	}
}

func TestLoadPaths(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("d/20.cf", "body A /a/\nscore A 2\nbody B /b/\n")
	write("d/10.cf", "body A /not this/\nscore A 1\n")
	write("d/readme.txt", "body C /c/\n")
	write("d/.hidden.cf", "body C /c/\n")
	write("d/below/30.cf", "body C /c/\n")
	single := write("single.conf", "score A 3\n")
	gone := filepath.Join(dir, "gone")

	set, problems, err := Load([]string{filepath.Join(dir, "d"), single, gone}, Options{Optional: []string{gone}})
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	if got := hits(t, set, letter(t, "Subject: x\n\na b c")); got != "A=3 B=1" {
		t.Errorf("hits %q", got)
	}

	if _, _, err := Load([]string{gone, filepath.Join(dir, "too")}, Options{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "too") {
		t.Errorf("missing paths: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "d", "folder.cf"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, problems, err := Load([]string{filepath.Join(dir, "d")}, Options{}); err != nil || len(problems) != 1 || !strings.Contains(problems[0].What, "not a regular file") {
		t.Errorf("a folder named .cf: %v %v", problems, err)
	}
	big := write("big/1.cf", strings.Repeat("# padding\n", maxFileBytes/10+1))
	if _, problems, err := Load([]string{big}, Options{}); err != nil || len(problems) != 1 || problems[0].Why != "limit" {
		t.Errorf("a file too big: %v %v", problems, err)
	}
	if _, _, err := Load(nil, Options{ScoreSet: 4}); err == nil {
		t.Error("score set 4 was taken")
	}
}

func TestLimitOfRules(t *testing.T) {
	var b strings.Builder
	for i := range maxRules + 10 {
		fmt.Fprintf(&b, "meta R%d 1\n", i)
	}
	set, problems := load(t, b.String(), Options{})
	if n := set.Coverage().Rules; n != maxRules {
		t.Errorf("%d rules", n)
	}
	if len(problems) != 1 || problems[0].Why != "limit" || problems[0].Count != 10 {
		t.Errorf("problems %v", problems)
	}
}

func TestLimitOfProblems(t *testing.T) {
	_, problems := load(t, strings.Repeat("body X\n", maxProblems+5), Options{})
	last := problems[len(problems)-1]
	if len(problems) != maxProblems+1 || last.Count != 5 || last.Why != "limit" {
		t.Errorf("%d problems, the last %v", len(problems), last)
	}
}

func TestCoverage(t *testing.T) {
	set, _ := load(t, "body A /a/\nbody __B /b/\nbody C /c/\nscore C 0\nbody D /d(?=e)/\nmeta E D\nbody F eval:f()\n", Options{})
	c := set.Coverage()
	if got, want := fmt.Sprint(c), "{2 1 1 map[dependency:1 eval:1 regex:1]}"; got != want {
		t.Errorf("coverage %s, want %s", got, want)
	}
	c.Skipped["regex"] = 7
	if set.Coverage().Skipped["regex"] != 1 {
		t.Error("the caller's map is the set's")
	}
	if got := fmt.Sprint(set.Rules()); got != "[{A A 1 false} {__B __B 1 true}]" {
		t.Errorf("rules %s", got)
	}
}

func TestCount(t *testing.T) {
	_, problems := load(t, "boddy X /a/\nbody D /d(?=e)/\nrequired_score 3\nrequired_score 4\n", Options{})
	if got, want := Count(problems), (Tally{Mistakes: 1, Unsupported: 1, Notices: 2, RulesOut: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// FuzzLoad: whatever stands in a file, each rule in it runs, is off, or is named
// in a problem.
func FuzzLoad(f *testing.F) {
	f.Add("body A /a/\nscore A 1\nmeta B A && !C\n")
	f.Add("if (version >= 4)\nheader A Subject =~ /x/ [if-unset: y]\nelse\nuri A m{x}\nendif\n")
	f.Add("replace_rules A\nbody A /<B>/\nlang de describe A x\n")
	f.Add("ifplugin X\nifplugin Y\nbody A /a/\nendif\nelse\nbody A /b/\nendif\nmeta C (A + 1) * 2 / 0\n")
	f.Add("mimeheader A Content-Type =~ /x/\nrawbody B /\\xff/\nfull C /^a$/m\ntflags C multiple maxhits=2\n")
	f.Fuzz(func(t *testing.T, cf string) {
		if len(cf) > 64<<10 {
			return
		}
		r := newReader()
		r.readFile("fuzz.cf", cf)
		set := build(r, Options{})
		named := map[string]bool{}
		for _, p := range r.problems {
			if p.What == "" || p.Remedy == "" || p.Line == 0 || p.Count < 1 || strings.ContainsAny(p.String(), "\n\r\x00\x1b") {
				t.Errorf("a problem is incomplete or not printable: %+v", p)
			}
			named[p.Rule] = true
		}
		for name := range r.defs {
			slot, runs := set.slots[name]
			runs = runs && slot < len(set.rules)
			off := (&builder{reader: r}).scoreOf(name) == 0
			if !runs && !off && !named[name] && r.dropped == 0 {
				t.Errorf("%s neither runs nor is it named", name)
			}
		}
		m := letter(t, "From: A <a@example.org>\nSubject: test\n\nThe body of it.\nhttp://example.org/")
		hits(t, set, m)
	})
}
