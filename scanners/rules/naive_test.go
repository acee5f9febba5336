package rules

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/testkit"
	"sluice/internal/verdict"
	"sluice/scanners"
)

// naive gives every rule its value with regexp alone: without literals, automata
// and joined rules. It is what the fast way is held against.
func naive(t testing.TB, s *Ruleset, m *message) []float64 {
	t.Helper()
	r := &run{set: s, msg: m, values: make([]float64, len(s.slots))}
	r.symbols()
	hits := func(u *rule, text string) int {
		re, err := u.re.regexp()
		if err != nil {
			t.Fatalf("%s: %v", u.name, err)
		}
		return naiveCount(re, octets(text), u.maxHits)
	}
	texts := func(g *group, lines []string) {
		if g == nil {
			return
		}
		for _, u := range append(append([]*rule(nil), g.rules...), g.always...) {
			for i, line := range lines {
				if u.noSubject && u.kind == kindBody && i == 0 {
					continue
				}
				if left := u.maxHits - int(r.values[u.slot]); left > 0 {
					r.values[u.slot] += float64(min(left, hits(u, line)))
				}
			}
		}
	}
	field := func(g *headerGroup, value string, present bool) {
		for _, u := range g.all {
			switch left := u.maxHits - int(r.values[u.slot]); {
			case u.exists && present:
				r.values[u.slot] = 1
			case u.exists || left <= 0:
			case u.negated && !present && hits(u, u.unset) == 0, u.negated && present && hits(u, value) == 0:
				r.values[u.slot] = 1
			case u.negated:
			case present:
				r.values[u.slot] += float64(min(left, hits(u, value)))
			default:
				r.values[u.slot] += float64(min(left, hits(u, u.unset)))
			}
		}
	}
	for _, g := range s.headers {
		value, present, _ := g.target.value(m)
		field(g, value, present)
	}
	for _, g := range s.mime {
		for _, p := range m.parts {
			value, present, _ := g.target.join(p.Header.All(g.target.name))
			if g.target.name == "ALL" {
				value, _ = g.target.whole(p.Header)
				present = p.Header != nil
			}
			field(g, value, present)
		}
	}
	for _, u := range s.facts {
		r.values[u.slot] = float64(min(u.fact(m), u.maxHits))
	}
	texts(s.body, m.body())
	texts(s.uri, m.uris())
	texts(s.raw, m.content.Raw)
	if s.full != nil {
		text, err := m.full(maxFull)
		if err != nil {
			t.Fatal(err)
		}
		texts(s.full, []string{text})
	}
	for _, u := range s.metas {
		r.values[u.slot] = u.meta(r.values)
	}
	return r.values
}

func naiveCount(re *regexp.Regexp, text string, limit int) int {
	if limit == 1 {
		return hit(re.MatchString(text))
	}
	return len(re.FindAllStringIndex(text, limit))
}

// corpus calls f with each mail of the tests, and those below SLUICE_RULES_MAIL.
func corpus(t testing.TB, f func(name string, raw []byte)) {
	t.Helper()
	for _, e := range examples {
		f(e.rule+" hit", example(e.hit))
		f(e.rule+" capitals", bytes.ToUpper(example(e.hit)))
		f(e.rule+" miss", example(e.miss))
	}
	paths, err := filepath.Glob("testdata/field/*/*.eml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no mail", err)
	}
	if dir := os.Getenv("SLUICE_RULES_MAIL"); dir != "" {
		more, err := filepath.Glob(filepath.Join(dir, "*", "*", "*.eml"))
		if err != nil || len(more) == 0 {
			t.Fatal("no mail", dir, err)
		}
		paths = append(paths, more...)
	}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) < 1<<20 && !bytes.Contains(raw, []byte("@pad:")) {
			f(path, fill(raw))
		}
	}
}

// viewed calls f with what rules see of a mail.
func viewed(t testing.TB, spool *mail.Spool, raw []byte, f func(m *message)) {
	t.Helper()
	m := spool.New()
	defer m.Close()
	if _, err := m.ReadFrom(bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	v, err := view(context.Background(), &scanners.Input{Message: m, Envelope: &envelope.Envelope{}})
	if err != nil {
		t.Fatal(err)
	}
	f(v)
}

func testSpool(t testing.TB) *mail.Spool {
	t.Helper()
	spool, err := mail.NewSpool(mail.SpoolOptions{Dir: filepath.Join(t.TempDir(), "spool"), MemoryLimit: 256 << 20, MaxBytes: 256 << 20, MaxMessage: 32 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { spool.Close() })
	return spool
}

// TestFastIsNaive: each rule has the value that it has when every pattern is run
// on every text with regexp.
func TestFastIsNaive(t *testing.T) {
	set, spool := benchSet(t), testSpool(t)
	mails, differences, positive := 0, 0, 0
	var fast, slow time.Duration
	corpus(t, func(name string, raw []byte) {
		viewed(t, spool, raw, func(m *message) {
			mails++
			before := cpuTime(t)
			r := &run{set: set, msg: m, clock: newClock(t.Context(), time.Hour), values: make([]float64, len(set.slots)), seen: make([]uint32, len(set.rules))}
			if err := r.all(); err != nil || r.clock.spent() {
				t.Fatal(err)
			}
			middle := cpuTime(t)
			want := naive(t, set, m)
			fast, slow = fast+middle-before, slow+cpuTime(t)-middle
			for _, u := range set.rules {
				if want[u.slot] != 0 {
					positive++
				}
				if r.values[u.slot] != want[u.slot] {
					differences++
					t.Errorf("%s: %s is %v, without short cuts %v", name, u.name, r.values[u.slot], want[u.slot])
				}
			}
		})
	})
	t.Logf("%d rules on %d mails: %d values that aren't 0, %d differences; CPU %v a mail, naive %v", len(set.rules), mails, positive, differences,
		fast/time.Duration(mails), slow/time.Duration(mails))
}

// TestJoinedPatterns: an automaton of many patterns names all that are found, and
// only those, from several goroutines at once, also while its states are thrown
// away.
func TestJoinedPatterns(t *testing.T) {
	var patterns []*pattern
	for _, c := range perlCases {
		if p, err := compileRegex(c.pattern); err == nil {
			patterns = append(patterns, p)
		}
	}
	progs := newDFA()
	for _, p := range patterns {
		progs.progs = append(progs.progs, p.prog)
	}
	memory := &dfaMemory{}
	memory.adopt(progs)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for _, c := range perlCases {
				for _, text := range c.texts {
					if worker == 0 && len(text) == 1 {
						memory.add(maxAllStates + 1)
					}
					got := make([]bool, len(patterns))
					progs.run(text, nil, func(found []int32) bool {
						for _, i := range found {
							got[i] = true
						}
						return true
					})
					for i, p := range patterns {
						re, err := p.regexp()
						if err != nil {
							t.Error(err)
						} else if want := re.MatchString(octets(text)); got[i] != want || p.match(text, nil) != want {
							t.Errorf("%s on %q: joined %v, alone %v, regexp %v", p.expr, text, got[i], p.match(text, nil), want)
						}
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestStatesAreBounded: a pattern that counts from everywhere has more states
// than are kept, and is found all the same.
func TestStatesAreBounded(t *testing.T) {
	p, err := compileRegex(`/a[ab]{200}c/`)
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 20_000)
	x := uint32(1)
	for i := range noise {
		x = x*1664525 + 1013904223
		noise[i] = 'a' + byte(x>>31)
	}
	if p.match(string(noise), nil) {
		t.Error("found in a text without c")
	}
	if n := p.dfa.current().bytes; n > maxStateBytes+64<<10 {
		t.Errorf("%d bytes of states", n)
	}
	text := string(noise) + "a" + strings.Repeat("b", 200) + "c"
	if !p.match(text, nil) {
		t.Error("not found")
	}
	c := newClock(t.Context(), 0)
	if p.match(text, c) || !c.spent() {
		t.Error("no end when the time is over")
	}
}

// TestWhatIsCutIsSaid: a text that loaded rules look at and that is longer than
// what they see leaves a finding; without such a rule there is nothing to say.
func TestWhatIsCutIsSaid(t *testing.T) {
	long := testkit.Sized("long", maxFull+1<<20)
	many := example("To: " + strings.Repeat("k@example.net, ", maxMailboxes+1) + "l@example.net")
	tests := []struct {
		name, cf string
		raw      []byte
		want     bool
	}{
		{"full", "full X /nowhere/", long, true},
		{"full of a short one", "full X /nowhere/", example(""), false},
		{"no full rule", "header X To =~ /nowhere/", long, false},
		{"addresses", "header X To:addr =~ /nowhere/", many, true},
		{"no rule on them", "header X From:addr =~ /nowhere/", many, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, _ := load(t, tt.cf+"\n", Options{})
			got := false
			for _, f := range judge(t, New(set, 0), tt.raw, scanners.Input{}).Findings {
				got = got || f.Symbol == SymbolCut && f.Kind == verdict.KindUnchecked
			}
			if got != tt.want {
				t.Errorf("said %v, want %v", got, tt.want)
			}
		})
	}
	m := letter(t, "Subject: x\nX-Long: "+strings.Repeat("a", maxFieldText)+"\n\ny")
	for cf, want := range map[string]int{"header X X-Long =~ /b/": 1, "header X X-Long:raw =~ /b/": 1, "header X ALL =~ /b/": 1, "header X Subject =~ /b/": 0, "mimeheader X X-Long =~ /b/": 1} {
		set, _ := load(t, cf+"\n", Options{})
		if out, err := set.evaluate(t.Context(), m, time.Minute); err != nil || len(out.cuts) != want {
			t.Errorf("%s: %v %v, want %d", cf, out.cuts, err, want)
		}
	}
}
