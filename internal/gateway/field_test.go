package gateway

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/envelope"
	"sluice/internal/verdict"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares the header that arrives with testdata/NAME.want.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", strings.TrimSuffix(name, ".eml")+".want")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s -want +got:\n%s", path, d)
	}
}

// Case 55: the tag stands in front exactly once, the rest is kept, a Subject is made
// where there was none, and the flag is there once.
func TestFieldCase55TagOnce(t *testing.T) {
	b := newBench(t, `
policies:
  - match: "@c55.example.net"
    mark_score: -100
    subject_tag: "[SPAM] "
`, eicar(), scores(0.5))
	for _, name := range []string{"55-plain.eml", "55-tagged.eml", "55-none.eml"} {
		got := b.delivered(b.send(inbound("<kim@c55.example.net>"), load(t, name)))
		golden(t, name, written(got))
		if d := cmp.Diff([]string{"YES"}, valuesOf(got, "X-Spam-Flag")); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if s := valuesOf(got, "Subject"); len(s) != 1 || strings.Count(s[0], "[SPAM]") != 1 || !strings.HasPrefix(s[0], "[SPAM]") {
			t.Errorf("%s: Subject %q", name, s)
		}
	}
}

// Case 56: foreign verdict fields are gone but X-Spam-Prev-*, our own say No.
func TestFieldCase56ForeignVerdictFields(t *testing.T) {
	b := newBench(t, "policies: []\n", eicar(), scores(0.5))
	got := b.delivered(b.send(inbound("<kim@example.net>"), load(t, "56-foreign.eml")))
	golden(t, "56-foreign.eml", written(got))
	if strings.Count(written(got), "planted") != 1 || len(valuesOf(got, "X-Spam-Flag")) != 0 {
		t.Errorf("planted fields stay:\n%s", written(got))
	}
}

// Case 59: a refusal tells its kind and the site's text in ASCII and ends in the ID.
func TestFieldCase59TextOfARefusal(t *testing.T) {
	banned := finds("attachment", verdict.Finding{
		Symbol: "BANNED_NAME", Kind: verdict.KindBanned, Description: "Attachment with a banned name", Part: "2", Detail: "Prämie 50%s%n.exe\x00",
	})
	b := newBench(t, `
policies:
  - match: "@c59.example.net"
    reject_text: "We refuse 100% of programs, ask the helpdesk"
`, banned)
	o := b.send(inbound("<kim@c59.example.net>"), load(t, "59-program.eml"))
	if o.Reply.Code != 550 || !regexp.MustCompile(`^5\.\d+\.\d+$`).MatchString(o.Reply.Enhanced) {
		t.Errorf("reply %+v", o.Reply)
	}
	if !strings.Contains(o.Reply.Text, "We refuse 100% of programs, ask the helpdesk") || !strings.HasSuffix(o.Reply.Text, "(id "+o.id+")") {
		t.Errorf("text %q", o.Reply.Text)
	}
	for i := range len(o.Reply.Text) {
		if c := o.Reply.Text[i]; c < ' ' || c > '~' {
			t.Errorf("byte %#x in %q", c, o.Reply.Text)
		}
	}
	if len(o.Fields) > 0 || len(o.RemoveRecipients) > 0 {
		t.Errorf("a refused message is changed: %+v", o.Disposition)
	}
}

// Case 61: the machine's own mail goes out, bears no verdict and isn't marked.
func TestFieldCase61MailOfTheMachineItself(t *testing.T) {
	b := newBench(t, "policies: []\n", eicar(), scores(9))
	env := &envelope.Envelope{
		SessionID: "s", QueueID: "4Q0061", Local: true, Host: "host.example.net",
		Client: envelope.Client{Name: "localhost", Helo: "localhost"},
		Sender: envelope.Sender{Address: envelope.Parse("root@host.example.net")}, Recipients: []envelope.Recipient{{Address: envelope.Parse("root@host.example.net")}},
	}
	raw := load(t, "61-cron.eml")
	o := b.send(env, raw)
	if d := cmp.Diff(o.header, b.delivered(o)); d != "" {
		t.Errorf("changed:\n%s", d)
	}
	if got := b.log.messages(t)[0]["direction"]; got != "outbound" {
		t.Errorf("direction %v", got)
	}
}

// Case 65: each mail of a connection has a fate, fields and an ID of its own.
func TestFieldCase65SeveralMailsOnOneConnection(t *testing.T) {
	b := newBench(t, "policies: []\n", eicar(), scores(0.5))
	virus := b.send(inbound("<kim@example.net>"), load(t, "65-virus.eml"))
	if virus.Reply.Code != 550 || !strings.HasSuffix(virus.Reply.Text, "(id id-1)") {
		t.Errorf("virus: %+v", virus.Reply)
	}
	second := inbound("<kim@example.net>")
	second.QueueID = "4Q0002"
	one := b.delivered(b.send(second, load(t, "65-clean.eml")))
	third := inbound("<kim@example.net>")
	third.QueueID = ""
	broken, _, _ := b.begin(t.Context(), third, load(t, "65-clean.eml"))
	broken.Abandon("ABORT")
	other := inbound("<ann@example.net>", "<bob@example.net>")
	other.QueueID = "4Q0004"
	two := b.delivered(b.send(other, load(t, "65-clean.eml")))
	if a, c := valuesOf(one, "X-Sluice-ID"), valuesOf(two, "X-Sluice-ID"); len(a) != 1 || len(c) != 1 || a[0] != "id-2" || c[0] != "id-4" {
		t.Errorf("IDs %v and %v", a, c)
	}
	var told []string
	for _, m := range b.log.messages(t) {
		told = append(told, strings.Join([]string{m["queue_id"].(string), m["id"].(string), m["recipient"].(string), m["disposition"].(string)}, " "))
	}
	want := []string{"4Q0001 id-1 kim@example.net 550 5.7.1", "4Q0002 id-2 kim@example.net accept", " id-3 kim@example.net abandoned", "4Q0004 id-4 ann@example.net,bob@example.net accept"}
	if d := cmp.Diff(want, told); d != "" {
		t.Errorf("log -want +got:\n%s", d)
	}
	if len(b.journal.records) != 3 {
		t.Errorf("%d records", len(b.journal.records))
	}
}

// Cases 19 and 31: signed mail that is marked keeps all its own fields.
func TestFieldCases19And31SignedMailKeepsItsFields(t *testing.T) {
	b := newBench(t, `
policies:
  - match: "@."
    subject_tag: "[SPAM] "
`, eicar(), scores(6))
	for _, name := range []string{"19-smime.eml", "31-pgp.eml"} {
		o := b.send(inbound("<kim@example.net>"), load(t, name))
		got := b.delivered(o)
		for i, f := range o.header {
			if at := len(got) - len(o.header) + i; at < 0 || got[at].Name != f.Name || got[at].Value != f.Value {
				t.Errorf("%s: field %s changed:\n%s", name, f.Name, written(got))
				break
			}
		}
		if d := cmp.Diff([]string{"YES"}, valuesOf(got, "X-Spam-Flag")); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
