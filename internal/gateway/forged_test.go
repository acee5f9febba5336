package gateway

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/mail"
	"sluice/policy"
)

func TestIsVerdictField(t *testing.T) {
	for name, want := range map[string]bool{
		"X-Spam-Flag": true, "x-spam-flag": true, "X-SPAM-Report": true, "X-Spam-Flag ": true, "X-Spam-": true,
		"X-Spam-Prev-Subject": false, "x-spam-prev-": false, "X-Spam": false, "X-Spamd-Result": false,
		"X-Virus-Scanned": true, "X-Virus-Status\t": true, "X-Virus": false,
		"X-Sluice-ID": true, "X-Sluice-Anything": true, "X-Quarantine-ID": true, "X-Quarantine-Id": true, "X-Quarantine-IDs": false,
		"X-ſpam-Flag": false, "Subject": false, "": false,
	} {
		if got := isVerdictField(name); got != want {
			t.Errorf("isVerdictField(%q) = %v", name, got)
		}
	}
}

func TestClaimsOurID(t *testing.T) {
	ids := []string{"mx.example.net", "old.example.net", "xn--bcher-kva.example"}
	for _, tc := range []struct {
		name, value string
		want        bool
	}{
		{"ours", " mx.example.net; spf=pass smtp.mailfrom=example.org", true},
		{"no result", " mx.example.net; none", true},
		{"other case", " MX.Example.NET; spf=pass", true},
		{"alias", " old.example.net; spf=pass", true},
		{"version", " mx.example.net 1; spf=pass", true},
		{"old version form", " mx.example.net/1; spf=pass", true},
		{"trailing dot", " mx.example.net.; spf=pass", true},
		{"quoted", ` "mx.example.net"; spf=pass`, true},
		{"quoted with quoted pairs", ` "mx\.example\.net"; spf=pass`, true},
		{"quoted over a fold", " \"mx.exam\r\n\tple.net\"; spf=pass", false},
		{"comment before", " (by (nested) us) mx.example.net; spf=pass", true},
		{"comment with a closing bracket quoted", ` (a\)) mx.example.net; spf=pass`, true},
		{"fold before", "\r\n\tmx.example.net; spf=pass", true},
		{"comment after", " mx.example.net(us); spf=pass", true},
		{"U-label", " bücher.example; spf=pass", true},
		{"another's", " mx.example.org; spf=pass smtp.mailfrom=mx.example.net", false},
		{"one that begins alike", " mx.example.net.evil.example; spf=pass", false},
		{"one that ends alike", " evil-mx.example.net; spf=pass", false},
		{"method first, other hosts", " spf=pass smtp.mailfrom=example.org", false},
		{"method first, our name in it", " spf=pass by mx.example.net", true},
		{"comment not closed", " (mx.example.net; spf=pass", true},
		{"quote not closed", ` "mx.example.net; spf=pass`, true},
		{"nothing", "", true},
		{"blanks", " \r\n\t", true},
		{"semicolon", "; spf=pass", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := claimsOurID(tc.value, ids); got != tc.want {
				t.Errorf("claimsOurID(%q) = %v", tc.value, got)
			}
		})
	}
}

func TestRemovals(t *testing.T) {
	fields := []mail.Field{
		{Name: "X-Spam-Flag", Value: " YES"},
		{Name: "Received", Value: " x"},
		{Name: "Authentication-Results", Value: " mx.example.net; spf=pass"},
		{Name: "Authentication-Results", Value: " mx.example.org; spf=pass"},
		{Name: "authentication-results", Value: " mx.example.net; dkim=pass"},
		{Name: "X-Spam-Prev-Subject", Value: " kept"},
		{Name: "x-spam-flag", Value: " YES"},
		{Name: "X-Sluice-Ticket", Value: " t"},
	}
	del := func(name string, n int) policy.FieldChange {
		return policy.FieldChange{Op: policy.DeleteField, Name: name, Index: n}
	}
	got := removals(fields, []string{"mx.example.net"}, false)
	want := []policy.FieldChange{
		del("X-Sluice-Ticket", 1), del("x-spam-flag", 2), del("authentication-results", 3),
		del("Authentication-Results", 1), del("X-Spam-Flag", 1),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("removals (-want +got):\n%s", d)
	}
	got = removals(fields, []string{"mx.example.net"}, true)
	if d := cmp.Diff([]policy.FieldChange{del("X-Sluice-Ticket", 1)}, got); d != "" {
		t.Errorf("tickets only (-want +got):\n%s", d)
	}
}

// FuzzAuthservID holds that a field which begins with our id, in whatever dress, goes,
// and that reading an id never takes more than there is.
func FuzzAuthservID(f *testing.F) {
	f.Add("", "", "; spf=pass")
	f.Add("(a(b)\\))", "(c)", " 1; none")
	f.Add("\r\n\t", "", "/1;")
	f.Fuzz(func(t *testing.T, before, after, rest string) {
		id, left, ok := authservID(before + after + rest)
		if ok && (id == "" || len(id)+len(left) > len(before)+len(after)+len(rest)) {
			t.Errorf("id %q, rest %q of %q", id, left, before+after+rest)
		}
		if s, closed := skipCFWS(before); s != "" || !closed {
			return
		}
		value := before + "MX.example.net;" + rest
		if !claimsOurID(value, []string{"mx.example.net"}) {
			t.Errorf("%q stays", value)
		}
		if strings.ContainsAny(after, "\"\\\r\n") {
			return
		}
		if value = before + `"mx.example.net";` + rest; !claimsOurID(value, []string{"mx.example.net"}) {
			t.Errorf("%q stays", value)
		}
	})
}
