package policy_test

import (
	"slices"
	"strings"
	"testing"

	"sluice/policy"
)

func TestRowsNameWhatHasNoEffect(t *testing.T) {
	var idle []string
	for _, r := range policy.Defaults().Rows(map[string]bool{"bayes": true}) {
		if r.NoEffect != "" {
			idle = append(idle, r.Key)
			if !strings.HasPrefix(r.NoEffect, "no effect in this build") {
				t.Error(r.NoEffect)
			}
		}
	}
	want := []string{"scan_attachments", "failed_after", "failed_final_action", "quarantine", "quarantine_days", "redirect_to",
		"banned_names", "banned_types", "dmarc_action", "rate_limit"}
	if !slices.Equal(idle, want) {
		t.Errorf("without effect: %v\nwant %v", idle, want)
	}
	for _, r := range policy.Defaults().Rows(built) {
		if r.NoEffect != "" {
			t.Errorf("%s: %s", r.Key, r.NoEffect)
		}
	}
}

func TestSenderRows(t *testing.T) {
	e := load(t, `
  - {match: "@.", deny_senders: {"@.example.com": {score: 3, final: true}}}
  - {match: "@example.net", allow_senders: {example.com: -5, "@.example.com": {score: -1, unauthenticated: true}}}
`).Inbound(addr("kim@example.net"))
	for _, tt := range []struct {
		sender string
		want   []string
	}{
		{"lee+x@EXAMPLE.com", []string{
			"allow_senders: @example.com: -5, from @example.net; counts only if SPF (sender) or an aligned DKIM signature (author) passed",
			"deny_senders: @.example.com: {score: 3, final: true}, from @."}},
		{"lee@sub.example.com", []string{
			"allow_senders: @.example.com: {score: -1, unauthenticated: true}, from @example.net",
			"deny_senders: @.example.com: {score: 3, final: true}, from @."}},
		{"lee@example.org", nil},
		{"", nil},
	} {
		if got := e.SenderRows(addr(tt.sender)); !slices.Equal(got, tt.want) {
			t.Errorf("%s:\n%s", tt.sender, strings.Join(got, "\n"))
		}
	}
}
