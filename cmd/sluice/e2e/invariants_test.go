package e2e

import (
	"bytes"
	"strings"
	"testing"

	"sluice/internal/testkit"
)

// A message that isn't changed passes byte for byte: what we add stands above it.
func TestMailPassesByteForByte(t *testing.T) {
	s := theSystem(t)
	line := strings.Repeat("0123456789", 250) // longer than SMTP allows
	for _, tc := range []struct{ name, body string }{
		{"empty body", ""},
		{"eight bit", "Gr\xc3\xbc\xc3\x9fe \xff\xfe\x80 \xa0\r\n"},
		{"long line", line + "\r\n" + line + "\r\n"},
		{"dots", ".\r\n..\r\n.x\r\n. \r\n"},
		{"empty lines at the end", "text\r\n\r\n\r\n\r\n"},
		{"blanks at line ends", "text \r\n\t\r\n  \r\n"},
		{"tabs and controls", "a\tb\x01\x02\x1b\x7f\r\n"},
		{"lines that look like fields", "From here on\r\nSubject: no field\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			subject := "bytes, " + tc.name
			data := []byte("From: alice@example.net\r\nTo: bob@example.org\r\nsubject:  " + subject + "\r\nX-Odd:\tfolded\r\n \t  twice\r\n\tand again \r\n" +
				"Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMessage-ID: <" + strings.ReplaceAll(subject, " ", ".") + "@example.net>\r\n\r\n" + tc.body)
			for _, way := range []mta{{"from outside", s.postfix.SMTP, outside}, {"originating", s.postfix.Submission, outside}} {
				s := s
				replies(t, smtp(t, way.addr, way.client, bytes.Replace(data, []byte(subject), []byte(subject+", "+way.name), 1)), "250")
				got := arrives(t, s.sink, subject+", "+way.name)
				want := bytes.Replace(data, []byte(subject), []byte(subject+", "+way.name), 1)
				if !bytes.HasSuffix(got.Data, want) {
					t.Errorf("%s: sent %q, arrived %q", way.name, want, got.Data)
				}
				if above := strings.TrimSuffix(string(got.Data), string(want)); way.name == "originating" && strings.Count(above, "\n") != strings.Count(above, "\n\t")+strings.Count(above, "\n ")+1 {
					t.Errorf("originating mail has more than one field on top: %q", above)
				}
			}
		})
	}
}

// Mail of our own users bears no verdict, and none of theirs is left on it.
func TestOriginatingMailBearsNoVerdict(t *testing.T) {
	s := theSystem(t)
	t.Parallel()
	const subject = "originating mail"
	replies(t, smtp(t, s.postfix.Submission, outside, testkit.WithFields(clean(subject), "X-Spam-Flag: YES", "X-Virus-Status: Clean")), "250")
	d := arrives(t, s.sink, subject)
	for line := range strings.Lines(d.Header()) {
		if strings.HasPrefix(line, "X-") {
			t.Errorf("it bears %q", line)
		}
	}
	replies(t, smtp(t, s.postfix.Submission, outside, virus("originating virus")), "550 5.7.1")
	line := s.daemon.waitLog(t, "msg=message", "direction=outbound", "550 5.7.1")
	if strings.Contains(line, "class=clean") {
		t.Errorf("it is logged as %s", line)
	}
}

// What is signed or encrypted stays as it was, the subject too, even where it is tagged.
func TestSignedMailKeepsFieldsAndBody(t *testing.T) {
	s := theSystem(t)
	for _, tc := range []struct{ name, contentType, body string }{
		{"S-MIME signed", "multipart/signed; protocol=\"application/pkcs7-signature\";\r\n\tmicalg=sha-256; boundary=\"sig\"",
			"This is an S/MIME signed message\r\n\r\n--sig\r\nContent-Type: text/plain\r\n\r\nThe offer.  \r\n--sig\r\n" +
				"Content-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\r\nMIAGCSqGSIb3DQEHAqCAMIACAQExDzANBglghkgB\r\n\r\n--sig--\r\n"},
		{"PGP signed", "multipart/signed; micalg=pgp-sha512;\r\n protocol=\"application/pgp-signature\"; boundary=\"sig\"",
			"--sig\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThe offer.\r\n--sig\r\nContent-Type: application/pgp-signature; name=signature.asc\r\n\r\n" +
				"-----BEGIN PGP SIGNATURE-----\r\n\r\niHUEARYKAB0WIQ\r\n-----END PGP SIGNATURE-----\r\n--sig--\r\n"},
		{"S-MIME encrypted", "application/pkcs7-mime; smime-type=enveloped-data; name=smime.p7m", "MIAGCSqGSIb3DQEHA6CAMIACAQAxggE\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			subject := "signed mail, " + tc.name
			data := []byte("From: alice@example.net\r\nTo: bob@example.org\r\nSubject: " + subject + "\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\n" +
				"Message-ID: <signed." + strings.ReplaceAll(tc.name, " ", ".") + "@example.net>\r\nMIME-Version: 1.0\r\nContent-Type: " + tc.contentType + "\r\n\r\n" + tc.body)
			// The policy of this domain marks everything and tags the subject.
			replies(t, smtp(t, s.postfix.SMTP, outside, data, "kim@c55.example.net"), "250")
			d := arrives(t, s.sink, subject)
			bears(t, d, "X-Spam-Flag", "YES")
			if !bytes.HasSuffix(d.Data, data) {
				t.Errorf("sent\n%s\narrived\n%s", data, d.Data)
			}
		})
	}
}

// The log line of a message and Postfix's lines have the queue ID in common.
func TestQueueIDJoinsTheLogs(t *testing.T) {
	s := theSystem(t)
	t.Parallel()
	reply := smtp(t, s.postfix.SMTP, outside, clean("queue ID"))
	_, id, ok := strings.Cut(reply, "queued as ")
	if !ok {
		t.Fatalf("Postfix says %q", reply)
	}
	line := s.daemon.waitLog(t, "msg=message", "queue_id="+id)
	for _, want := range []string{"session_id=", "client_address=198.51.100.17", "helo_name=mail.example.net", "sender=" + alice, "recipient=" + bob, "class=clean", "disposition=accept"} {
		if !strings.Contains(line, want) {
			t.Errorf("no %s in %s", want, line)
		}
	}
	if _, err := s.postfix.WaitLog(t.Context(), id, "postfix/cleanup", "message-id=<queue.ID@mail.example.net>"); err != nil {
		t.Error(err)
	}
	d := arrives(t, s.sink, "queue ID")
	ids := d.Fields("X-Sluice-ID")
	if len(ids) != 1 || !strings.Contains(line, "id="+ids[0]) {
		t.Errorf("X-Sluice-ID %q isn't in the log line %s", ids, line)
	}
	if n := strings.Count(s.daemon.log(), "queue_id="+id); n != 1 {
		t.Errorf("%d lines for one message", n)
	}
}

// Clean mail, a virus and spam end alike through both MTAs.
func TestVerdictsThroughBothMTAs(t *testing.T) {
	s := theSystem(t)
	for _, m := range s.both() {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			replies(t, smtp(t, m.addr, m.client, virus("a virus by "+m.name)), "550 5.7.1")
			replies(t, smtp(t, m.addr, m.client, spam("spam by "+m.name)), "550 5.7.1")
			replies(t, smtp(t, m.addr, m.client, spam("marked by "+m.name), "bob@tag.example.org"), "250")
			replies(t, smtp(t, m.addr, m.client, spam("dropped by "+m.name), "bob@drop.example.org"), "250")
			replies(t, smtp(t, m.addr, m.client, clean("clean by "+m.name)), "250")
			d := arrives(t, s.sink, "clean by "+m.name)
			bears(t, d, "X-Spam-Status", "No, score=")
			bears(t, d, "X-Virus-Status", "Clean")
			bears(t, d, "X-Spam-Flag")
			bears(t, d, "X-Sluice-ID", "0")
			d = arrives(t, s.sink, "marked by "+m.name)
			bears(t, d, "Subject", "[SPAM] marked by "+m.name)
			bears(t, d, "X-Spam-Flag", "YES")
			bears(t, d, "X-Spam-Status", "Yes, score=")
			for _, never := range []string{"a virus by " + m.name, "spam by " + m.name, "dropped by " + m.name} {
				if n := count(s.sink, never); n != 0 {
					t.Errorf("%q arrived %d times", never, n)
				}
			}
		})
	}
}
