// Command testsum reads the events of `go test -json` from standard input, prints
// one line a package and the output of what failed, and ends with
//
//	tests: N passed, N failed, N skipped
//
// It counts tests and subtests by their own events. It exits 1 if one failed or
// was skipped, if none ran, or if a package didn't build or didn't end.
//
// Invariants:
//   - A test that began and has no end is a failed one (a panic, a time-out, a
//     runner that was killed).
//   - A package that failed without a failed test counts as one failed test.
//   - What isn't an event is passed on as it is.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	s := newSummary(os.Stdout)
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
	if !s.finish() {
		os.Exit(1)
	}
}

// event is one line of `go test -json` (cmd/test2json; build-output and
// build-fail are those of `go build -json`).
type event struct {
	Action, Package, Test, Output, ImportPath, FailedBuild string
	Elapsed                                                float64 // seconds
}

// maxOutput bounds what is kept of one test's output, in bytes.
const maxOutput = 1 << 20

type test struct {
	output strings.Builder
	ended  bool
}

func (t *test) add(s string) {
	if t.output.Len()+len(s) <= maxOutput {
		t.output.WriteString(s)
	}
}

// pack is a package under test.
type pack struct {
	own                     test // events without a test
	tests                   map[string]*test
	passed, failed, skipped int
}

func (p *pack) test(name string) *test {
	if name == "" {
		return &p.own
	}
	t := p.tests[name]
	if t == nil {
		t = &test{}
		p.tests[name] = t
	}
	return t
}

type summary struct {
	out                     io.Writer
	packages                map[string]*pack
	builds                  map[string]*test // compiler output, by import path
	passed, failed, skipped int
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, packages: map[string]*pack{}, builds: map[string]*test{}}
}

// read takes events until the end of r.
func (s *summary) read(r io.Reader) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if line[0] != '{' || json.Unmarshal(line, &e) != nil || e.Action == "" {
				s.print(string(line))
			} else {
				s.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) print(text string) { fmt.Fprint(s.out, text) }

func (s *summary) take(e event) {
	if e.ImportPath != "" { // of a build
		b := s.builds[e.ImportPath]
		if b == nil {
			b = &test{}
			s.builds[e.ImportPath] = b
		}
		b.add(e.Output)
		return
	}
	p := s.packages[e.Package]
	if p == nil {
		p = &pack{tests: map[string]*test{}}
		s.packages[e.Package] = p
	}
	t := p.test(e.Test)
	switch e.Action {
	case "output":
		t.add(e.Output)
	case "pass", "fail", "skip":
		t.ended = true
		if e.Test == "" {
			s.endPackage(e, p)
			return
		}
		s.endTest(e.Action, e.Package, e.Test, p, t)
	}
}

func (s *summary) endTest(action, pkg, name string, p *pack, t *test) {
	switch action {
	case "pass":
		p.passed++
	case "skip":
		p.skipped++
		s.print("--- skipped: " + pkg + " " + name + "\n")
	default:
		p.failed++
		s.print("--- failed: " + pkg + " " + name + "\n")
	}
	if action != "pass" {
		s.print(t.output.String())
	}
	t.output = strings.Builder{}
}

// endPackage counts the package and prints its line; tests without an end have
// failed.
func (s *summary) endPackage(e event, p *pack) {
	p.own.ended = true
	for _, name := range sortedKeys(p.tests) {
		if t := p.tests[name]; !t.ended {
			t.ended = true
			t.add("(it has no end)\n")
			s.endTest("fail", e.Package, name, p, t)
		}
	}
	if e.Action == "fail" {
		if b := s.builds[e.FailedBuild]; b != nil {
			s.print("--- doesn't build: " + e.Package + "\n" + b.output.String())
		}
		if p.failed == 0 {
			p.failed++
		}
		s.print(p.own.output.String())
	}
	s.passed, s.failed, s.skipped = s.passed+p.passed, s.failed+p.failed, s.skipped+p.skipped
	word := "ok  "
	switch {
	case p.failed > 0:
		word = "FAIL"
	case p.skipped > 0:
		word = "SKIP"
	case p.passed == 0:
		word = "none"
	}
	fmt.Fprintf(s.out, "%s %-36s %5d passed %6.1f s\n", word, e.Package, p.passed, e.Elapsed)
}

// finish counts what never ended, prints the last line and tells whether all is
// well.
func (s *summary) finish() bool {
	for _, name := range sortedKeys(s.packages) {
		if p := s.packages[name]; !p.own.ended {
			s.endPackage(event{Action: "fail", Package: name}, p)
		}
	}
	fmt.Fprintf(s.out, "tests: %d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	return s.passed > 0 && s.failed == 0 && s.skipped == 0
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	keys := make([]K, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
