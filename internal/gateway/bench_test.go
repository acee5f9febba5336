package gateway

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkMessage is what the gateway and the reader cost a message, scanners and
// protocol aside.
func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{5_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d", size), func(b *testing.B) {
			bn := newBench(b, "policies: []\n")
			raw := hello + strings.Repeat(strings.Repeat("x", 70)+"\r\n", size/72)
			env := inbound("<kim@example.net>")
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				bn.send(env, raw)
				bn.journal.records = bn.journal.records[:0]
				bn.log.b.Reset()
			}
		})
	}
}
