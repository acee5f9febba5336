package testkit

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

// Part is one body part of a composed message.
type Part struct {
	// Type is the media type with parameters; "" means text/plain in UTF-8.
	Type string
	// Name, if set, makes it an attachment of that name (ASCII).
	Name string
	// Data is sent in base64 if it is an attachment, else as it is (bare LF becomes
	// CRLF).
	Data []byte
}

// Text returns a part of plain text.
func Text(s string) Part { return Part{Data: []byte(s)} }

// HTML returns a part of HTML in UTF-8.
func HTML(s string) Part { return Part{Type: "text/html; charset=utf-8", Data: []byte(s)} }

// Attachment returns an attached file, application/octet-stream.
func Attachment(name string, data []byte) Part {
	return Part{Type: "application/octet-stream", Name: name, Data: data}
}

// Forwarded returns a whole message as a message/rfc822 part.
func Forwarded(message []byte) Part { return Part{Type: "message/rfc822", Data: message} }

// Compose returns a message with CRLF line ends: a single part is the message's
// own body, several are multipart/mixed. From is alice@example.net, To
// bob@example.org, the date is fixed.
func Compose(subject string, parts ...Part) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: Alice <alice@example.net>\r\nTo: Bob <bob@example.org>\r\nSubject: %s\r\n", subject)
	b.WriteString("Date: Mon, 02 Nov 2026 10:00:00 +0000\r\nMIME-Version: 1.0\r\n")
	if len(parts) == 1 {
		parts[0].write(&b)
		return b.Bytes()
	}
	const boundary = "=_sluice_part"
	b.WriteString("Content-Type: multipart/mixed; boundary=\"" + boundary + "\"\r\n\r\n")
	for _, p := range parts {
		b.WriteString("--" + boundary + "\r\n")
		p.write(&b)
	}
	b.WriteString("--" + boundary + "--\r\n")
	return b.Bytes()
}

// write writes the part's own fields, the empty line and the body, which ends in
// a line end.
func (p Part) write(b *bytes.Buffer) {
	b.WriteString("Content-Type: " + orString(p.Type, "text/plain; charset=utf-8") + "\r\n")
	if p.Name == "" {
		data := bytes.ReplaceAll(bytes.ReplaceAll(p.Data, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		if !strings.HasPrefix(p.Type, "message/") {
			b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
		}
		b.WriteString("\r\n")
		b.Write(data)
		if !bytes.HasSuffix(data, []byte("\r\n")) {
			b.WriteString("\r\n")
		}
		return
	}
	fmt.Fprintf(b, "Content-Disposition: attachment; filename=%q\r\nContent-Transfer-Encoding: base64\r\n\r\n", p.Name)
	for encoded := base64.StdEncoding.EncodeToString(p.Data); encoded != ""; {
		n := min(76, len(encoded))
		b.WriteString(encoded[:n] + "\r\n")
		encoded = encoded[n:]
	}
}

// WithFields returns the message with header lines (without CRLF) put above it.
func WithFields(message []byte, lines ...string) []byte {
	var b bytes.Buffer
	for _, l := range lines {
		b.WriteString(l + "\r\n")
	}
	b.Write(message)
	return b.Bytes()
}

// Sized returns a text message of exactly n bytes in lines of 78; n must be at
// least 512.
func Sized(subject string, n int) []byte {
	message := Compose(subject, Text(""))
	const line = "The quick brown fox jumps over the lazy dog, and then it does it once more.\r\n"
	out := make([]byte, 0, n+len(line))
	out = append(out, message...)
	for len(out) < n {
		out = append(out, line...)
	}
	out = out[:n]
	copy(out[n-2:], "\r\n")
	return out
}

// Zip returns an archive that holds one deflated file.
func Zip(name string, data []byte) ([]byte, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(name)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
