package e2e

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"testing"

	"sluice/internal/testkit"
)

// TestFaultMemoryCap: large messages, many at once, cost disk and not memory.
func TestFaultMemoryCap(t *testing.T) {
	t.Parallel()
	binary, err := built.plain()
	if err != nil {
		t.Fatal(err)
	}
	clamd := testkit.StartClamd(t, testkit.ClamdOptions{})
	const limit = 64 << 20
	d := startDaemon(t, options{binary: binary, scanners: withClamd("200s", clamd.Endpoint()), milter: "memory_limit: 64MiB"})
	const messages, size = 32, 25_000_000
	data := identified("large", testkit.Compose("large", testkit.Text("See there.\n"), testkit.Attachment("a.bin", make([]byte, size*3/4*76/78-1000))))
	if len(data) < size*99/100 || len(data) > size {
		t.Fatalf("%d bytes", len(data))
	}
	var wg sync.WaitGroup
	for range messages {
		wg.Go(func() { d.answers(t, data, "250") })
	}
	wg.Wait()
	u, err := testkit.ProcessUsage(d.process.PID())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB at most", u.PeakRSS>>20)
	if u.PeakRSS > limit+100<<20 {
		t.Errorf("%d MiB, with memory_limit %d MiB", u.PeakRSS>>20, limit>>20)
	}
	d.waitMetric(t, "sluice_spool_bytes", "0", is(0))
}

// TestFaultHundredMBMessage: more than clamd takes is unchecked, and says so; more than we
// take is refused.
func TestFaultHundredMBMessage(t *testing.T) {
	s := theSystem(t)
	t.Parallel()
	const subject = "a hundred megabytes"
	data := identified(subject, testkit.Sized(subject, 100_000_000))
	replies(t, smtp(t, s.postfix.SMTP, outside, data), "250")
	d := arrives(t, s.sink, subject)
	bears(t, d, "X-Sluice-Class", "unchecked; reason=")
	bears(t, d, "X-Virus-Status", "Unchecked")
	if d.Size < 100_000_000 {
		t.Errorf("%d bytes arrived", d.Size)
	}
	small := startDaemon(t, options{milter: "max_message_size: 1MiB"})
	small.answers(t, data, "552 5.3.4")
	small.answers(t, testkit.Sized("fits", 1<<20-1000), "250")
	p := startPostfix(t, small, s.sink, nil)
	replies(t, smtp(t, p.SMTP, outside, identified("too large", testkit.Sized("too large", 2<<20))), "552 5.3.4")
}

// TestFaultManyHeaders: a header without an end is refused, in time.
func TestFaultManyHeaders(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, options{})
	for _, tc := range []struct {
		name   string
		fields int
		want   string
	}{{"nine thousand", 9_000, "250"}, {"a million", 1_000_000, "552"}} {
		data := append(bytes.Repeat([]byte("X-Many: one\r\n"), tc.fields), clean("many fields")...)
		d.answers(t, data, tc.want)
	}
	d.answers(t, clean("after"), "250")
}

// TestFaultManyRecipients: there is a limit, and each recipient past it is told to come again.
func TestFaultManyRecipients(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, options{policy: "policies: [{match: '@drop.example.org', spam_action: discard}]\n"})
	const limit, more = 50_000, 100
	m := milterMail(clean("many recipients"))
	m.Recipients = make([]string, limit+more)
	for i := range m.Recipients {
		m.Recipients[i] = fmt.Sprintf("r%d@d%d.example.org", i, i%100)
	}
	r, err := d.deliver(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	replies(t, r.Reply.SMTP(), "250")
	taken, later := 0, 0
	for _, reply := range r.Recipients {
		switch {
		case strings.HasPrefix(reply.SMTP(), "250"):
			taken++
		case strings.HasPrefix(reply.SMTP(), "452"):
			later++
		}
	}
	if taken != limit || later != more {
		t.Errorf("%d recipients taken, %d told to come again", taken, later)
	}
	if n := len(d.log()); n > 64<<10 {
		t.Errorf("%d bytes of log for one message", n)
	}
	d.answers(t, spam("after"), "550 5.7.1")
}

// TestFaultZipBombAndNesting: what is too much to be looked at is never called clean.
func TestFaultZipBombAndNesting(t *testing.T) {
	s := theSystem(t)
	t.Parallel()
	// One large member is cut by clamd at MaxFileSize without a word; many reach MaxScanSize.
	bomb, many := zipOf(t, 20, 10<<20), zipOf(t, 12_000, 1)
	deep, err := []byte(testkit.EICAR()), error(nil)
	for range 25 {
		if deep, err = testkit.Zip("inner.zip", deep); err != nil {
			t.Fatal(err)
		}
	}
	nested := testkit.Compose("innermost", testkit.Text("Here.\n"))
	for range 100 {
		nested = testkit.Compose("around", testkit.Forwarded(nested), testkit.Text("And this.\n"))
	}
	parts := make([]testkit.Part, 3000)
	for i := range parts {
		parts[i] = testkit.Text("One of many.\n")
	}
	var multiparts strings.Builder
	multiparts.WriteString("From: alice@example.net\r\nTo: bob@example.org\r\nSubject: multiparts\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n")
	const depth = 100
	for i := range depth {
		fmt.Fprintf(&multiparts, "Content-Type: multipart/mixed; boundary=b%d.\r\n\r\n--b%d.\r\n", i, i)
	}
	multiparts.WriteString("Content-Type: text/plain\r\n\r\nHere.\r\n")
	for i := depth - 1; i >= 0; i-- {
		fmt.Fprintf(&multiparts, "--b%d.--\r\n", i)
	}
	for _, tc := range []struct {
		name string
		data []byte
	}{
		{"zip bomb", testkit.Compose("zip bomb", testkit.Text("See there.\n"), testkit.Attachment("a.zip", bomb))},
		{"too many files in a zip", testkit.Compose("too many files", testkit.Text("See there.\n"), testkit.Attachment("a.zip", many))},
		{"zips in zips", testkit.Compose("zips in zips", testkit.Text("See there.\n"), testkit.Attachment("a.zip", deep))},
		{"messages in messages", nested},
		{"multiparts in multiparts", []byte(multiparts.String())},
		{"three thousand parts", testkit.Compose("three thousand parts", parts...)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			subject := "bomb: " + tc.name
			data := bytes.Replace(tc.data, []byte("Subject: "), []byte("Subject: "+subject+" "), 1)
			reply := smtp(t, s.postfix.SMTP, outside, identified(subject, data))
			if strings.HasPrefix(reply, "550") { // as a virus, or as ambiguous: not passed either
				return
			}
			replies(t, reply, "250")
			d := arrives(t, s.sink, subject)
			bears(t, d, "X-Sluice-Class", "unchecked; reason=")
		})
	}
}

// zipOf returns an archive of n files of that many zeros, which are compressed once.
func zipOf(t *testing.T, n, size int) []byte {
	t.Helper()
	zeros := make([]byte, size)
	var deflated, b bytes.Buffer
	f, err := flate.NewWriter(&deflated, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(zeros)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	w := zip.NewWriter(&b)
	for i := range n {
		f, err := w.CreateRaw(&zip.FileHeader{
			Name: fmt.Sprint("file", i), Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(zeros),
			CompressedSize64: uint64(deflated.Len()), UncompressedSize64: uint64(size),
		})
		if err == nil {
			_, err = f.Write(deflated.Bytes())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
