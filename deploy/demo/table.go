package main

import (
	"fmt"
	"strings"

	"sluice/internal/testkit"
)

// table prints what became of each message, one block each.
type table struct{ rows, failed int }

func (t *table) head(title string) {
	fmt.Printf("\n%s\n%s\n", title, strings.Repeat("─", 110))
}

// shown are the fields worth showing of a message that arrived.
var shown = []string{"Subject", "X-Spam-Flag", "X-Spam-Status", "X-Virus-Status", "X-Sluice-Class", "X-Sluice-ID"}

func (t *table) row(m message, reply string, arrived testkit.Delivery, wrong []string) {
	t.rows++
	mark := "ok"
	if len(wrong) > 0 {
		t.failed++
		mark = "NOT AS EXPECTED: " + strings.Join(wrong, "; ")
	}
	fmt.Printf("%-45s %s\n", m.name, mark)
	fmt.Printf("    reply    %s\n", cut(reply, 100))
	if len(arrived.Recipients) == 0 {
		fmt.Printf("    arrived  nowhere\n")
		return
	}
	fmt.Printf("    arrived  %s\n", strings.Join(arrived.Recipients, ", "))
	for _, name := range shown {
		for _, value := range arrived.Fields(name) {
			fmt.Printf("             %s: %s\n", name, cut(value, 90))
		}
	}
}

func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
