package rules

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// perlCases are patterns and texts on which Perl itself is asked. Each pattern
// is tried on each of its texts.
var perlCases = []struct {
	pattern string
	texts   []string
}{
	{`/viagra/`, []string{"viagra", "VIAGRA", "via gra"}},
	{`/viagra/i`, []string{"ViAgRa", "via gra"}},
	{`m{^https?://[^/]+/}`, []string{"http://a/", "HTTP://a/", "xhttp://a/"}},
	{`m!a/b!`, []string{"a/b", "ab"}},
	{`m(a|b)`, []string{"b", "c"}},
	{`m<a>`, []string{"a", "<a>"}},
	{`m'a$'`, []string{"a", "a\n", "a\nb"}},
	{`/a\/b/`, []string{"a/b", "a\\/b"}},
	{`/end$/`, []string{"end", "end\n", "end\n\n", "end\nx", "endx"}},
	{`/end$/m`, []string{"end", "end\n", "end\nx", "endx"}},
	{`/^b/`, []string{"b", "a\nb"}},
	{`/^b/m`, []string{"b", "a\nb", "ab"}},
	{`/end\Z/`, []string{"end\n", "end\nx"}},
	{`/end\z/`, []string{"end", "end\n"}},
	{`/\Aa.b/`, []string{"a\nb", "axb"}},
	{`/a.b/s`, []string{"a\nb", "axb"}},
	{`/(?s:a.b).c/`, []string{"a\nbxc", "a\nb\nc"}},
	{`/a\sb/`, []string{"a\x0bb", "a b", "a\x0cb", "a\xa0b", "a\x85b", "a\x1cb"}},
	{`/a\Sb/`, []string{"a\x0bb", "axb", "a\xa0b", "a\xffb"}},
	{`/[\s]/`, []string{"\x0b", "x"}},
	{`/[^\s]/`, []string{"\x0b", "x", "\xe9"}},
	{`/[\S]/`, []string{"\x0b", "\xe9"}},
	{`/[\W\d]/`, []string{"5", "a", "-", "\xe9"}},
	{`/^\w+$/`, []string{"abc_9", "caf\xe9", "a b"}},
	{`/\bb\b/`, []string{"a b c", "abc", "\xe9b\xe9"}},
	{`/\Bb/`, []string{"ab", "b"}},
	{`/\h/`, []string{" ", "\t", "\xa0", "\n"}},
	{`/\v/`, []string{"\n", "\x0b", "\x85", " "}},
	{`/a\Rb/`, []string{"a\r\nb", "a\nb", "a\x85b", "ab"}},
	{`/\N/`, []string{"\n", "x"}},
	{`/^.{3}$/`, []string{"\xe9\xe9\xe9", "\xc3\xa9x", "ab"}},
	{`/\xe9/`, []string{"\xe9", "\xc3\xa9", "\xc9"}},
	{`/\xe9/i`, []string{"\xc9", "\xe9"}},
	{`/[\xe0-\xef]+/i`, []string{"\xc9", "\xd0"}},
	{`/\xc3\xa9/`, []string{"caf\xc3\xa9", "caf\xe9"}},
	{"/\xe9t\xe9/", []string{"\xe9t\xe9", "ete"}},
	{`/\x{e9}\x9\x/`, []string{"\xe9\x09\x00", "\xe9\x09"}},
	{`/\e\a\cA\c[/`, []string{"\x1b\x07\x01\x1b", "ea"}},
	{`/\0\012\101\o{102}/`, []string{"\x00\nAB", "0"}},
	{`/[\b]/`, []string{"\x08", "b"}},
	{`/[]a]/`, []string{"]", "b"}},
	{`/[^]a]/`, []string{"]", "b"}},
	{`/[a-]/`, []string{"-", "b"}},
	{`/[\w-]/`, []string{"-", "b", "!"}},
	{`/[\w-z]/`, []string{"-", "!", "z"}},
	{`/[a-\d]/`, []string{"-", "5", "b"}},
	{`/[[:alpha:]-]/`, []string{"-", "b", "5"}},
	{`/[[:^digit:]]/`, []string{"5", "\xe9"}},
	{`/[[:space:]]/`, []string{"\x0b", "x"}},
	{`/[[:punct:]]/`, []string{"$", "+", "a", "\xa1"}},
	{`/[\/\.\]]/`, []string{"]", "/", "\\"}},
	{`/[$@%]/`, []string{"$", "@", "a"}},
	{`/a{2}/`, []string{"aa", "a"}},
	{`/^a{2,3}$/`, []string{"aa", "aaaa"}},
	{`/^a{,2}$/`, []string{"", "aa", "aaa", "a{,2}"}},
	{`/a{x}/`, []string{"a{x}", "a"}},
	{`/a{/`, []string{"a{", "a"}},
	{`/a{2,1/`, []string{"a{2,1", "aa"}},
	{`/{}/`, []string{"{}", ""}},
	{`/a+?b/`, []string{"aab", "b"}},
	{`/a b # no
/x`, []string{"ab", "a b"}},
	{`/a\ b[ ]c/x`, []string{"a b c", "abc"}},
	{`/a (?-x: b)/x`, []string{"a b", "ab"}},
	{`/(?x) a b/`, []string{"ab", "a b"}},
	{`/a(?#note)b/`, []string{"ab", "a"}},
	{`/(?i)AB/`, []string{"ab", "AB"}},
	{`/a(?i)B|c/`, []string{"ab", "Ab", "C"}},
	{`/(?i:a)b/`, []string{"Ab", "AB"}},
	{`/((?i)a)b/`, []string{"Ab", "AB"}},
	{`/(?^:a)b/i`, []string{"Ab", "aB"}},
	{`/(?^i:a)b/`, []string{"Ab", "AB"}},
	{`/(?-i)a/i`, []string{"A", "a"}},
	{`/(?<n>a)(?'m'b)(?P<o>c)/`, []string{"abc", "ab"}},
	{`/(a|b(c|d))+$/`, []string{"abcbd", "ab"}},
	{`/^(?:a|)$/`, []string{"", "a", "b"}},
	{`/\$\d+\.\d\d/`, []string{"$12.00", "12.00"}},
	{`/\@\%\&\-\_\=/`, []string{"@%&-_=", "@"}},
	{`/k/i`, []string{"K", "\xe2\x84\xaa"}},
	{`/ss/i`, []string{"\xdf", "SS"}},
	{`/\xb5/i`, []string{"\xb5", "\xce\xbc"}},
	{`/\x{263a}/`, []string{"\xe2\x98\xba", ":"}},
	{`/[\x{263a}]/`, []string{"\xe2\x98\xba", ":"}},
	{`/[^\x{263a}]/`, []string{"\xe2", ":"}},
	{`/\x24$/`, []string{"a$", "a$\n"}},
	{`/[\n\r]$/`, []string{"\n", "\r"}},
	{`/(?:x$|y)z?/`, []string{"x\n", "y", "xz"}},
	{`/a|^b$|c/`, []string{"b\n", "bb"}},
}

// perlOracle answers whether Perl finds each pattern in its texts, compiled as
// SpamAssassin does: qr/…/aa on byte strings.
const perlOracle = `
use strict; no warnings;
open(my $in, '<:raw', $ARGV[0]) or die $!; local $/; my @f = split /\x01/, <$in>, -1;
while (@f > 1) {
	my ($re, $flags, $n) = splice(@f, 0, 3);
	$flags =~ tr/imsx//cd;
	my $qr = eval { qr/(?$flags)$re/aa };
	for (1 .. $n) { my $t = shift @f; print defined $qr ? ($t =~ $qr ? 1 : 0) : 'E'; }
	print "\n";
}
`

// askPerl returns, for each pattern, a string of 1 (found), 0 (not found) and E
// (no pattern).
func askPerl(t *testing.T) []string {
	t.Helper()
	var in strings.Builder
	for _, c := range perlCases {
		body, flags, err := splitRegex(c.pattern)
		if err != nil {
			t.Fatalf("%s: %v", c.pattern, err)
		}
		fields := append([]string{body, flags, string(rune('0'+len(c.texts)/10)) + string(rune('0'+len(c.texts)%10))}, c.texts...)
		for _, f := range fields {
			if strings.Contains(f, "\x01") {
				f = strings.ReplaceAll(f, "\x01", "\x02")
			}
			in.WriteString(f + "\x01")
		}
	}
	path := filepath.Join(t.TempDir(), "cases")
	if err := os.WriteFile(path, []byte(in.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("perl", "-e", perlOracle, path).Output()
	if err != nil {
		t.Fatalf("perl: %v", err)
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(perlCases) {
		t.Fatalf("perl gave %d answers for %d patterns", len(answers), len(perlCases))
	}
	return answers
}

func TestPatternsMatchAsInPerl(t *testing.T) {
	for i, want := range askPerl(t) {
		c := perlCases[i]
		p, err := compileRegex(c.pattern)
		if err != nil {
			if strings.Trim(want, "E") != "" {
				t.Errorf("%s: %v, but Perl takes it", c.pattern, err)
			}
			continue
		}
		var got strings.Builder
		for _, text := range c.texts {
			if p.match(strings.ReplaceAll(text, "\x01", "\x02"), nil) {
				got.WriteByte('1')
			} else {
				got.WriteByte('0')
			}
		}
		if got.String() != want {
			t.Errorf("%s on %q: %s, Perl says %s (as %s)", c.pattern, c.texts, got.String(), want, p.expr)
		}
	}
}

func TestPatternsThatAreOut(t *testing.T) {
	tests := []struct {
		name, pattern, want string
		unsupported         bool
	}{
		{"look-ahead", `/a(?=b)/`, "needs look-around", true},
		{"negative look-ahead", `/a(?!b)c/`, "needs look-around", true},
		{"look-behind", `/(?<=a)b/`, "needs look-around", true},
		{"negative look-behind", `/(?<!a)b/`, "needs look-around", true},
		{"back-reference", `/(a)\1/`, `needs back-references (\1)`, true},
		{"named back-reference", `/(?<x>a)\k<x>/`, `needs back-references (\k)`, true},
		{"possessive", `/a++b/`, "needs a possessive quantifier", true},
		{"atomic", `/(?>a+)b/`, "needs an atomic group", true},
		{"recursion", `/(a(?R)?b)/`, "needs a backtracker", true},
		{"conditional", `/(a)?(?(1)b|c)/`, "needs a backtracker", true},
		{"branch reset", `/(?|(a)|(b))/`, "needs a backtracker", true},
		{"verb", `/(*FAIL)/`, "needs a backtracking verb", true},
		{"property", `/\p{Lu}/`, "needs Unicode properties", true},
		{"property in a class", `/[\p{Lu}]/`, "needs Unicode properties", true},
		{"keep", `/a\Kb/`, `needs \K`, true},
		{"quote", `/\Qa.b\E/`, `needs \Q`, true},
		{"long repetition", `/a{1001}/`, "is above 1000", true},
		{"nested repetition", `/((a{100}){100}){100}/`, "repeat", true},
		{"too long", "/" + strings.Repeat("a", maxPattern) + "/", "bytes", true},
		{"too large", `/` + strings.Repeat(`[ab][^c]{900}`, 30) + `/`, "", true},
		{"deep", "/" + strings.Repeat("(", 300) + "a" + strings.Repeat(")", 300) + "/", "nested", true},
		{"no delimiter", `viagra`, "no pattern", false},
		{"no end", `/viagra`, "no closing", false},
		{"empty", `//`, "empty", false},
		{"unknown flag", `/a/q`, "unknown flag", false},
		{"open group", `/(a/`, "no closing parenthesis", false},
		{"open class", `/[a/`, "no closing bracket", false},
		{"stray parenthesis", `/a)/`, "unmatched )", false},
		{"nothing to repeat", `/*a/`, "nothing to repeat", false},
		{"repeat of a repeat", `/a**/`, "nothing to repeat", false},
		{"upside down", `/[z-a]/`, "upside down", false},
		{"unknown class", `/[[:foo:]]/`, "unknown class", false},
		{"lone backslash", `m!a\!`, "backslash", false},
		{"no character", `/\x{110000}/`, "is no character", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := compileRegex(tt.pattern)
			if err == nil {
				t.Fatalf("compiled as %s", cut(p.expr, 100))
			}
			if errors.Is(err, errUnsupported) != tt.unsupported || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q (unsupported %v)", err, errors.Is(err, errUnsupported))
			}
		})
	}
}

func TestRequiredLiterals(t *testing.T) {
	tests := []struct{ pattern, want string }{
		{`/viagra/i`, "viagra"},
		{`/VIAGRA/`, "viagra"},
		{`/(?:cheap|buy) viagra/i`, "cheap viagra|buy viagra"},
		{`/\b(?:free|claim)\b/i`, "free|claim"},
		{`/a{3}bcd+/`, "aaabc"},
		{`/x+hello\s+wonderful/`, "wonderful"},
		{`/(?:abc)+/`, "abc"},
		{`/(?:abc)*/`, ""},
		{`/abc|d/`, ""},
		{`/ab/`, "ab"},
		{`/a/`, ""},
		{`m{^https?://(?:www\.)?(?:bit\.ly|t\.co|is\.gd)/}`, "bit.ly/|t.co/|is.gd/"},
		{`/\d{5}/`, ""},
		{`/caf\xe9s/`, "caf\xe9s"},
		{`/caf\xe9s/i`, "caf"},
		{`/wor[dk]s?/i`, "word|work"},
		{`/free|free money|money/`, "free|money"},
		{`/colou?r/`, "color|colour"},
		{`/^$/`, ""},
	}
	for _, tt := range tests {
		p, err := compileRegex(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		if got := strings.Join(p.literals, "|"); len(got) != len(tt.want) || !sameSet(p.literals, strings.Split(tt.want, "|")) && got != "" {
			t.Errorf("%s: literals %q, want %q", tt.pattern, got, tt.want)
		}
	}
}

func sameSet(a, b []string) bool {
	for _, s := range b {
		if !strings.Contains("|"+strings.Join(a, "|")+"|", "|"+s+"|") {
			return false
		}
	}
	return len(a) == len(b)
}

// FuzzTranslate: a pattern is compiled or refused; what its literals say holds.
func FuzzTranslate(f *testing.F) {
	for _, c := range perlCases {
		for _, s := range c.texts {
			f.Add(c.pattern, s)
		}
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		p, err := compileRegex(pattern)
		if err != nil {
			if err.Error() == "" {
				t.Error("no word of what is wrong")
			}
			return
		}
		if len(text) > 4<<10 || p.literals == nil || !p.match(text, nil) {
			return
		}
		found := false
		newAutomaton([][]string{p.literals}).find(text, func(int32) { found = true })
		if !found {
			t.Errorf("%s is found in %q without one of its literals %q", pattern, text, p.literals)
		}
	})
}
