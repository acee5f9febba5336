package policy_test

import (
	"fmt"
	"runtime"
	"testing"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
	"sluice/policy"
)

// many makes n policies, three plans among them, as a provider would have them.
func many(tb testing.TB, n int) []policy.Entry {
	tb.Helper()
	set := func(p *policy.Policy, key string, v any) {
		if err := p.Set(key, v); err != nil {
			tb.Fatal(err)
		}
	}
	entries := make([]policy.Entry, 0, n)
	for _, plan := range []string{"=gold", "=silver", "=free"} {
		var p policy.Policy
		set(&p, "mark_score", 4*verdict.Point)
		set(&p, "subject_tag", "[SPAM] ")
		entries = append(entries, policy.Entry{Match: plan, Policy: p})
	}
	for i := len(entries); i < n; i++ {
		var p policy.Policy
		set(&p, "like", []string{"gold", "silver", "free"}[i%3])
		set(&p, "kill_score", 12*verdict.Point)
		entries = append(entries, policy.Entry{Match: fmt.Sprintf("@customer-%d.example.org", i), Policy: p})
	}
	return entries
}

func snapshot(b testing.TB, n int) *policy.Snapshot {
	s, err := policy.NewSnapshot(many(b, n), policy.SnapshotOptions{Delimiters: "+"})
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkLookUp is what one recipient costs; spread has more domains than the
// cache holds.
func BenchmarkLookUp(b *testing.B) {
	s := snapshot(b, 100_000)
	addresses := make([]envelope.Address, 100_000)
	for i := range addresses {
		addresses[i] = envelope.Parse(fmt.Sprintf("user+x@customer-%d.example.org", i))
	}
	for _, bb := range []struct {
		name string
		n    int
	}{{"same", 1}, {"spread", len(addresses)}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.Inbound(addresses[i%bb.n])
				i += 7919
			}
		})
	}
}

// BenchmarkNewSnapshot reports time and memory for each of a million policies, the
// entries themselves included.
func BenchmarkNewSnapshot(b *testing.B) {
	const n = 1_000_000
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		s := snapshot(b, n)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/policy")
		runtime.KeepAlive(s)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/policy")
}

func BenchmarkDecideAndCombine(b *testing.B) {
	c := newCase(spam("A", 1), spam("B", 2), spam("C", 3), unchecked, spfPass)
	p := policy.Defaults()
	r := rcpt("kim@example.net")
	b.ReportAllocs()
	for b.Loop() {
		policy.Combine(c, []verdict.Decision{policy.Decide(c, r, p)}, []*policy.Effective{p}, policy.Capabilities{})
	}
}
