package testkit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// recorder is a filter that notes every frame and goes on, with the replies of
// script instead of "c" where it has some for a stage.
type recorder struct {
	addr   string
	steps  uint32
	script map[byte][]string // frames without length, by command

	mu       sync.Mutex
	sessions []*[]string // frames, by connection
}

func startRecorder(t *testing.T, network, addr string, steps uint32, script map[byte][]string) *recorder {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{addr: l.Addr().String(), steps: steps, script: script}
	var sessions sync.WaitGroup
	sessions.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			sessions.Go(func() {
				defer c.Close()
				stop := context.AfterFunc(t.Context(), func() { _ = c.Close() })
				defer stop()
				r.serve(c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); sessions.Wait() })
	return r
}

func (r *recorder) serve(c net.Conn) {
	in := bufio.NewReader(c)
	lines := new([]string)
	r.mu.Lock()
	r.sessions = append(r.sessions, lines)
	r.mu.Unlock()
	for {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:])-1)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		code := head[4]
		r.mu.Lock()
		*lines = append(*lines, fmt.Sprintf("%c %s", code, strings.ReplaceAll(string(body), "\x00", "|")))
		r.mu.Unlock()
		answers := r.script[code]
		switch code {
		case 'O':
			o := binary.BigEndian.AppendUint32([]byte("O"), min(6, binary.BigEndian.Uint32(body)))
			o = binary.BigEndian.AppendUint32(o, 0x1ff)
			answers = []string{string(binary.BigEndian.AppendUint32(o, r.steps))}
		case 'D', 'A', 'K':
			continue
		case 'Q':
			return
		default:
			if noReply := map[byte]uint32{'C': StepNoConnectReply, 'H': StepNoHeloReply, 'M': StepNoMailReply, 'L': StepNoHeaderReply, 'N': StepNoEOHReply, 'B': StepNoBodyReply}[code]; r.steps&noReply != 0 {
				continue
			}
			if answers == nil {
				answers = []string{"c"}
			}
		}
		for _, a := range answers {
			if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(a))), a...)); err != nil {
				return
			}
		}
	}
}

// take returns the frames of the last connection that had a MAIL, less the
// negotiation and the values that differ by nature (queue IDs, times, host names),
// once those of the letter are n. (Probes for readiness make connections too.)
func (r *recorder) take(ctx context.Context, t *testing.T, letter string, n int) []string {
	t.Helper()
	var frames []string
	err := Poll(ctx, nil, func(context.Context) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		seen := 0
		for _, lines := range slices.Backward(r.sessions) {
			if !slices.ContainsFunc(*lines, func(l string) bool { return l[0] == 'M' }) {
				continue
			}
			for _, l := range *lines {
				if strings.HasPrefix(l, letter+" ") {
					seen++
				}
			}
			frames = slices.Clone(*lines)
			break
		}
		if seen < n {
			return fmt.Errorf("%d of %d frames %q", seen, n, letter)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	frames = slices.DeleteFunc(frames, func(l string) bool {
		return l[0] == 'O' || l[0] == 'Q' || strings.HasPrefix(l, "L Message-Id|") || strings.HasPrefix(l, "L Date|")
	})
	for i, l := range frames {
		switch name, rest, _ := strings.Cut(l, "|"); l[0] {
		case 'D':
			frames[i] = blankMacros(l)
		case 'C': // family, then two bytes of port
			frames[i] = name + "|" + rest[:1] + rest[3:]
		}
	}
	return frames
}

var varyingMacros = []string{"i", "v", "_", "{msg_id}", "{daemon_addr}", "{if_name}", "{if_addr}", "{mail_host}", "{rcpt_host}", "{mail_mailer}", "{rcpt_mailer}"}

// blankMacros takes the values off the macros that differ by nature.
func blankMacros(line string) string {
	parts := strings.Split(line[3:], "|")
	for i := 0; i+1 < len(parts); i += 2 {
		if slices.Contains(varyingMacros, parts[i]) {
			parts[i+1] = "…"
		}
	}
	return line[:3] + strings.Join(parts, "|")
}

var asMTA = MilterMail{
	ClientName: "out.example.net", ClientAddr: netip.MustParseAddr("192.0.2.10"), ClientPort: 4025, Helo: "helo.example.net",
	QueueID: "1234567890", Sender: "a@example.net SIZE=1000", Recipients: []string{"b@example.org", "C+d@example.com NOTIFY=NEVER"},
	Data: []byte("Subject:  two blanks\r\nX-Dup: one\r\nx-dup:\ttab\r\nX-Fold: a\r\n\tb\r\n  c\r\nX-8: h\xc3\xa9\r\n" +
		"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nFrom: <a@example.net>\r\nMessage-Id: <1@example.net>\r\n\r\n.dot\r\n" + strings.Repeat("line\r\n", 12_000)),
}

// TestMilterClientSpeaksAsPostfix holds what the client sends against what a real
// Postfix sends for the same message.
func TestMilterClientSpeaksAsPostfix(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sink := StartSink(t, SinkOptions{})
	for _, steps := range []uint32{0, StepHeaderLeadSpace | StepNoHeaderReply | StepNoBodyReply | StepNoEOHReply | StepNoConnectReply | StepNoHeloReply | StepNoMailReply} {
		filter := startRecorder(t, "tcp", "127.0.0.1:0", steps, nil)
		postfix := StartPostfix(t, PostfixOptions{Relay: sink.Addr(), SMTPDMilters: "inet:" + filter.addr,
			Settings: map[string]string{"myhostname": "mx.example.org"}})
		smtp, err := Dial(ctx, postfix.SMTP, ClientOptions{Helo: asMTA.Helo, XClient: XClient{Addr: "192.0.2.10", Name: "out.example.net", Port: "4025"}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if res, err := smtp.Send(ctx, Mail{Sender: "a@example.net", SenderArgs: "SIZE=1000", Recipients: []string{"b@example.org"}, Data: asMTA.Data}); err != nil || res.Final().Code != 250 {
				t.Fatalf("%v, %v", res, err)
			}
		}
		if err := smtp.Close(); err != nil {
			t.Fatal(err)
		}
		client, err := DialMilter(ctx, "tcp", filter.addr, MilterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := filter.take(ctx, t, "A", 3)
		m := asMTA
		m.Recipients = m.Recipients[:1]
		for range 2 {
			if res, err := client.Send(ctx, m); err != nil || res.Reply.Code != 'c' || res.Stray != 0 {
				t.Fatalf("%+v, %v", res, err)
			}
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		got := filter.take(ctx, t, "A", 3)
		compareFrames(t, fmt.Sprintf("steps %#x", steps), want, got)
	}
}

func compareFrames(t *testing.T, name string, want, got []string) {
	t.Helper()
	short := func(s string) string { return s[:min(len(s), 200)] }
	for i := range max(len(want), len(got)) {
		w, g := "nothing", "nothing"
		if i < len(want) {
			w = want[i]
		}
		if i < len(got) {
			g = got[i]
		}
		if w != g {
			t.Errorf("%s: frame %d:\nMTA    %q\nclient %q", name, i, short(w), short(g))
		}
	}
}

// TestMilterClientSpeaksAsSendmail does the same with Sendmail.
func TestMilterClientSpeaksAsSendmail(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	sink := StartSink(t, SinkOptions{})
	socket := filepath.Join(TempDir(t), "s")
	filter := startRecorder(t, "unix", socket, 0, nil)
	sendmail := StartSendmail(t, SendmailOptions{Relay: sink.Addr(), Milter: "unix:" + socket})
	addr := orString(sendmail.SMTP6, sendmail.SMTP)
	if res, err := Send(ctx, addr, ClientOptions{Helo: asMTA.Helo}, Mail{Sender: "a@example.net", SenderArgs: "SIZE=1000", Recipients: []string{"b@example.org"}, Data: asMTA.Data}); err != nil || res[0].Final().Code != 250 {
		t.Fatalf("%v, %v", res, err)
	}
	want := filter.take(ctx, t, "E", 1)
	client, err := DialMilter(ctx, "unix", socket, MilterOptions{MTA: SendmailMTA})
	if err != nil {
		t.Fatal(err)
	}
	m := asMTA
	m.ClientName, m.ClientAddr, m.Recipients = "localhost", netip.MustParseAddr("127.0.0.1"), m.Recipients[:1]
	if sendmail.SMTP6 != "" {
		m.ClientName, m.ClientAddr, m.Daemon = "[IPv6:0:0:0:0:0:0:0:1]", netip.IPv6Loopback(), "MTA-v6"
	}
	if _, err := client.Send(ctx, m); err != nil {
		t.Fatal(err)
	}
	got := filter.take(ctx, t, "E", 1)
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	compareFrames(t, "sendmail", want, got)
}

func TestMilterClientResults(t *testing.T) {
	numbered := func(code byte, index uint32, rest string) string {
		return string(binary.BigEndian.AppendUint32([]byte{code}, index)) + rest
	}
	for _, tc := range []struct {
		name       string
		script     map[byte][]string
		stage      byte
		reply      string
		recipients string // codes
		changes    []string
	}{
		{"goes on", nil, 'E', "250 2.0.0 Ok", "cc", nil},
		{"refuses with a text", map[byte][]string{'E': {"p", "y550 5.7.1 no\x00"}}, 'E', "550 5.7.1 no", "cc", nil},
		{"refuses every recipient", map[byte][]string{'R': {"y451 4.2.0 x\x00"}}, 'R', "451 4.2.0 x", "yy", nil},
		{"accepts at MAIL", map[byte][]string{'M': {"a"}}, 'M', "250 2.0.0 Ok", "", nil},
		{"refuses at connect", map[byte][]string{'C': {"r"}}, 'C', "550 5.7.1 Command rejected", "", nil},
		{"skips the body", map[byte][]string{'B': {"s"}}, 'E', "250 2.0.0 Ok", "cc", nil},
		{"changes", map[byte][]string{'E': {
			"hX-Last\x00z\x00", numbered('i', 1, "X-First\x00a\n b\x00"), numbered('m', 2, "x-DUP\x00new\x00"), numbered('m', 1, "X-Fold\x00\x00"),
			"-<b@example.org>\x00", "+<new@example.org>\x00", "e<>\x00", "qsome reason\x00", "bnew ", "bbody", "c",
		}}, 'E', "250 2.0.0 Ok", "cc", []string{"hmi"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			filter := startRecorder(t, "tcp", "127.0.0.1:0", 0, tc.script)
			client, err := DialMilter(ctx, "tcp", filter.addr, MilterOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			res, err := client.Send(ctx, asMTA)
			if err != nil {
				t.Fatal(err)
			}
			var codes []byte
			for _, r := range res.Recipients {
				codes = append(codes, r.Code)
			}
			if res.Stage != tc.stage || res.Reply.SMTP() != tc.reply || string(codes) != tc.recipients {
				t.Errorf("stage %c, %q, recipients %q; want %c, %q, %q", res.Stage, res.Reply.SMTP(), codes, tc.stage, tc.reply, tc.recipients)
			}
			if tc.changes == nil {
				return
			}
			got := client.Apply(asMTA, res.Modifications)
			want := "X-First: a\r\n b\r\nSubject:  two blanks\r\nX-Dup: one\r\nx-DUP: new\r\nX-8: h\xc3\xa9\r\n" +
				"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nFrom: <a@example.net>\r\nMessage-Id: <1@example.net>\r\nX-Last: z\r\n\r\nnew body"
			if string(got.Data) != want || got.Sender != "" || got.Hold != "some reason" ||
				!slices.Equal(got.Recipients, []string{"C+d@example.com", "new@example.org"}) {
				t.Errorf("changed to %+v\n%q\nwant\n%q", got, got.Data, want)
			}
		})
	}
}

func TestMilterClientRefusesWhatIsMalformed(t *testing.T) {
	for name, answer := range map[string]string{
		"reply without NUL": "y550 no", "reply with 2xx": "y250 ok\x00", "unknown letter": "zz", "field without value": "hname\x00",
		"change without index": "m\x00", "too many strings": "hname\x00a\x00b\x00",
	} {
		t.Run(name, func(t *testing.T) {
			filter := startRecorder(t, "tcp", "127.0.0.1:0", 0, map[byte][]string{'E': {answer, "c"}})
			client, err := DialMilter(t.Context(), "tcp", filter.addr, MilterOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if res, err := client.Send(t.Context(), asMTA); err == nil {
				t.Errorf("taken as %+v", res)
			}
		})
	}
}

func TestComposedMessages(t *testing.T) {
	if n := len(Sized("size", 5000)); n != 5000 {
		t.Errorf("Sized(5000) has %d bytes", n)
	}
	archive, err := Zip("a.txt", []byte(EICAR()))
	if err != nil {
		t.Fatal(err)
	}
	message := Compose("all", Text("hello\n"), HTML("<p>hi</p>"), Attachment("a.zip", archive), Forwarded(Compose("inner", Text(GTUBE()))))
	if bytes.Contains(bytes.ReplaceAll(message, []byte("\r\n"), nil), []byte("\n")) || !bytes.Contains(message, []byte(GTUBE()+"\r\n")) {
		t.Errorf("composed as %q", message)
	}
	if len(EICAR()) != 68 || len(GTUBE()) != 68 {
		t.Errorf("EICAR has %d bytes, GTUBE %d; both have 68", len(EICAR()), len(GTUBE()))
	}
}
