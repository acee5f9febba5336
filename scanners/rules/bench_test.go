package rules

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/internal/testkit"
	"sluice/scanners"
)

// prose returns about n bytes of text without meaning, not the same twice.
func prose(r *rand.Rand, n int) string {
	words := strings.Fields(`the a of and to in for on with at by from as that this it we you they meeting report project
monday friday morning afternoon minutes budget plan garden winter summer river bridge letter answer question number
table window station train ticket school library music concert evening dinner bread coffee water paper pencil house`)
	var b strings.Builder
	for column := 0; b.Len() < n; {
		w := words[r.IntN(len(words))]
		b.WriteString(w)
		if column += len(w) + 1; column > 70 {
			b.WriteString("\n")
			column = 0
		} else {
			b.WriteString(" ")
		}
	}
	return b.String()
}

// ordinary makes a mail of about n bytes, in plain text or with HTML beside it.
func ordinary(n int, withHTML bool) []byte {
	r := rand.New(rand.NewPCG(1, 1))
	parts := []testkit.Part{testkit.Text(prose(r, n-600))}
	if withHTML {
		half := n/2 - 500
		parts = []testkit.Part{testkit.Text(prose(r, half)), testkit.HTML("<html><body><p>" + prose(r, half) + "</p><a href=\"https://www.example.net/\">more</a></body></html>")}
	}
	return testkit.WithFields(testkit.Compose("Note 1", parts...),
		"Received: from mail.example.net (mail.example.net [198.51.100.17]) by mx.example.org (Postfix) with ESMTPS id 4Q00001 for <bob@example.org>; Mon, 02 Nov 2026 10:00:01 +0000 (UTC)",
		"Message-ID: <1.1@mail.example.net>")
}

// benchSet is our own set, or what SLUICE_RULES_CF names (files and folders, a
// colon between two).
func benchSet(t testing.TB) *Ruleset {
	t.Helper()
	var paths []string
	if s := os.Getenv("SLUICE_RULES_CF"); s != "" {
		paths = filepath.SplitList(s)
	}
	set, _, err := Load(paths, Options{Builtin: true})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// cpuTime is what the process has used: neighbours don't count.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkScan is all the rules stage costs, reading and rendering apart.
func BenchmarkScan(b *testing.B) {
	set := benchSet(b)
	spool, err := mail.NewSpool(mail.SpoolOptions{Dir: filepath.Join(b.TempDir(), "spool"), MemoryLimit: 256 << 20, MaxBytes: 256 << 20, MaxMessage: 32 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer spool.Close()
	for _, n := range []int{5_000, 100_000, 4_000_000} {
		for _, html := range []bool{false, true} {
			raw := ordinary(n, html)
			ctx := context.Background()
			name := fmt.Sprintf("plain/%d", n)
			if html {
				name = fmt.Sprintf("alternative/%d", n)
			}
			receive := func() *mail.Message {
				m := spool.New()
				if _, err := m.ReadFrom(bytes.NewReader(raw)); err != nil {
					b.Fatal(err)
				}
				return m
			}
			b.Run("receive/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					receive().Close()
				}
			})
			b.Run("view/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					m := receive()
					if _, err := view(ctx, &scanners.Input{Message: m, Envelope: &envelope.Envelope{}}); err != nil {
						b.Fatal(err)
					}
					m.Close()
				}
			})
			b.Run("evaluate/"+name, func(b *testing.B) {
				m := receive()
				v, err := view(ctx, &scanners.Input{Message: m, Envelope: &envelope.Envelope{}})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				before := cpuTime(b)
				for b.Loop() {
					if _, err := set.evaluate(ctx, v, time.Minute); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
				m.Close()
			})
		}
	}
}

// BenchmarkCorpus is the rules stage on the mail of the tests, or that below
// SLUICE_RULES_MAIL.
func BenchmarkCorpus(b *testing.B) {
	set, spool := benchSet(b), testSpool(b)
	var raws [][]byte
	size := 0
	corpus(b, func(_ string, raw []byte) { raws, size = append(raws, raw), size+len(raw) })
	var views, rules time.Duration
	scanned := 0
	b.ReportAllocs()
	for b.Loop() {
		for _, raw := range raws {
			before := cpuTime(b)
			viewed(b, spool, raw, func(m *message) {
				middle := cpuTime(b)
				if _, err := set.evaluate(b.Context(), m, time.Minute); err != nil {
					b.Fatal(err)
				}
				views += middle - before
				rules += cpuTime(b) - middle
				scanned++
			})
		}
	}
	b.ReportMetric(float64(size/len(raws)), "bytes/mail")
	b.ReportMetric(float64(views)/float64(scanned), "read-ns/mail")
	b.ReportMetric(float64(rules)/float64(scanned), "rules-ns/mail")
}
