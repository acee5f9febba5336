package testkit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// Reply is an SMTP reply as it came. The zero Reply means that none came.
type Reply struct {
	Code int
	// Lines are the texts after code and separator.
	Lines []string
}

// String returns the reply as one line: "550 5.7.1 text", lines joined by " | ".
func (r Reply) String() string {
	if r.Code == 0 {
		return "no reply"
	}
	return strconv.Itoa(r.Code) + " " + strings.Join(r.Lines, " | ")
}

// OK reports whether the reply is 2xx or 3xx.
func (r Reply) OK() bool { return r.Code >= 200 && r.Code < 400 }

// XClient is what Postfix is to take the client for (XCLIENT_README). Empty
// attributes aren't sent.
type XClient struct {
	Addr, Name, Port, Helo, Proto, Login string
}

// Mail is one message with its envelope.
type Mail struct {
	// Sender and Recipients are paths without angle brackets. SenderArgs and
	// RecipientArgs are ESMTP arguments ("SIZE=1000 BODY=8BITMIME"); the latter are
	// sent with every recipient.
	Sender                    string
	SenderArgs, RecipientArgs string
	Recipients                []string
	// Data is the whole message with CRLF line ends; dots are stuffed by the client.
	Data []byte
	// ChunkBytes and ChunkDelay, if set, make the client send Data in pieces with a
	// pause after each.
	ChunkBytes int
	ChunkDelay time.Duration
}

// Result is what the server said to one Mail.
type Result struct {
	Sender     Reply
	Recipients []Reply // as far as it got, in the order of Mail.Recipients
	Data       Reply   // to DATA
	Message    Reply   // to the final dot
}

// Final returns the reply that settled the message: that of the final dot, or the
// first refusal before it.
func (r Result) Final() Reply {
	if r.Message.Code != 0 {
		return r.Message
	}
	if !r.Sender.OK() {
		return r.Sender
	}
	for _, reply := range r.Recipients {
		if !reply.OK() {
			return reply
		}
	}
	return r.Data
}

// ClientOptions say how a client introduces itself.
type ClientOptions struct {
	// Helo is the name given in EHLO; "" means client.example.net.
	Helo string
	// XClient, if not zero, is sent first.
	XClient XClient
	// StartTLS makes the client go on under TLS, without looking at the certificate.
	StartTLS bool
	// Timeout bounds each wait for a reply; 0 means 60 s.
	Timeout time.Duration
}

// Client is one SMTP connection. It is for one goroutine.
type Client struct {
	options ClientOptions
	conn    net.Conn
	r       *textproto.Reader
	w       *bufio.Writer
	// Greeting and Hello are the replies to the connection and to EHLO.
	Greeting, Hello Reply
}

// Dial connects, waits for the greeting and says XCLIENT (if asked), EHLO and
// STARTTLS (if asked). A reply other than 2xx to one of these is an error; the
// Client is then returned closed, with its Greeting and Hello as far as they came.
func Dial(ctx context.Context, addr string, options ClientOptions) (*Client, error) {
	options.Helo = orString(options.Helo, "client.example.net")
	options.Timeout = orDefault(options.Timeout, time.Minute)
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Client{options: options}
	c.use(conn)
	if err := c.introduce(); err != nil {
		_ = conn.Close() // the first error is the one that tells
		return c, err
	}
	return c, nil
}

func (c *Client) use(conn net.Conn) {
	c.conn, c.r, c.w = conn, textproto.NewReader(bufio.NewReader(conn)), bufio.NewWriter(conn)
}

func (c *Client) introduce() error {
	var err error
	if c.Greeting, err = c.expect(c.read()); err != nil {
		return err
	}
	if c.options.XClient != (XClient{}) {
		if _, err := c.expect(c.Command("EHLO localhost")); err != nil {
			return err
		}
		if c.Greeting, err = c.expect(c.Command(c.options.XClient.command())); err != nil {
			return err
		}
	}
	if c.Hello, err = c.expect(c.Command("EHLO " + c.options.Helo)); err != nil || !c.options.StartTLS {
		return err
	}
	if _, err := c.expect(c.Command("STARTTLS")); err != nil {
		return err
	}
	c.use(tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true}))
	c.Hello, err = c.expect(c.Command("EHLO " + c.options.Helo))
	return err
}

func (x XClient) command() string {
	var b strings.Builder
	b.WriteString("XCLIENT")
	for _, a := range []struct{ name, value string }{
		{"ADDR", x.Addr}, {"NAME", x.Name}, {"PORT", x.Port}, {"HELO", x.Helo}, {"PROTO", x.Proto}, {"LOGIN", x.Login},
	} {
		if a.value != "" {
			if a.name == "ADDR" && strings.Contains(a.value, ":") {
				a.value = "IPV6:" + a.value
			}
			b.WriteString(" " + a.name + "=" + a.value)
		}
	}
	return b.String()
}

// Command sends one line, without its CRLF, and returns the reply. The error
// tells trouble with the connection, not a refusal.
func (c *Client) Command(line string) (Reply, error) {
	if err := c.write([]byte(line + "\r\n")); err != nil {
		return Reply{}, err
	}
	return c.read()
}

func (c *Client) write(b []byte) error {
	if err := c.conn.SetDeadline(time.Now().Add(c.options.Timeout)); err != nil {
		return err
	}
	_, _ = c.w.Write(b) // shows at Flush
	return c.w.Flush()
}

func (c *Client) read() (Reply, error) {
	if err := c.conn.SetDeadline(time.Now().Add(c.options.Timeout)); err != nil {
		return Reply{}, err
	}
	var r Reply
	for len(r.Lines) < 1000 {
		line, err := c.r.ReadLine()
		if err != nil {
			return Reply{}, fmt.Errorf("smtp: %w", err)
		}
		code, err := strconv.Atoi(line[:min(3, len(line))])
		if err != nil || len(line) < 3 {
			return Reply{}, fmt.Errorf("smtp: not a reply: %q", line)
		}
		r.Code = code
		r.Lines = append(r.Lines, line[min(4, len(line)):])
		if len(line) == 3 || line[3] != '-' {
			return r, nil
		}
	}
	return Reply{}, errors.New("smtp: a reply without end")
}

func (c *Client) expect(r Reply, err error) (Reply, error) {
	if err == nil && !r.OK() {
		err = fmt.Errorf("smtp: %v", r)
	}
	return r, err
}

// Send sends one message and returns the replies. A refused recipient doesn't
// keep the others from being sent; without any accepted one the transaction is
// reset. The error tells trouble with the connection, not a refusal.
func (c *Client) Send(ctx context.Context, m Mail) (Result, error) {
	var res Result
	if err := ctx.Err(); err != nil {
		return res, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	var err error
	if res.Sender, err = c.Command(joinArgs("MAIL FROM:<"+m.Sender+">", m.SenderArgs)); err != nil || !res.Sender.OK() {
		return res, err
	}
	accepted := 0
	for _, recipient := range m.Recipients {
		reply, err := c.Command(joinArgs("RCPT TO:<"+recipient+">", m.RecipientArgs))
		if err != nil {
			return res, err
		}
		res.Recipients = append(res.Recipients, reply)
		if reply.OK() {
			accepted++
		}
	}
	if accepted == 0 {
		_, err := c.Command("RSET")
		return res, err
	}
	if res.Data, err = c.Command("DATA"); err != nil || !res.Data.OK() {
		return res, err
	}
	if err := c.content(ctx, m); err != nil {
		return res, err
	}
	res.Message, err = c.read()
	return res, err
}

// content sends the message, dots stuffed, and the final dot.
func (c *Client) content(ctx context.Context, m Mail) error {
	data := stuffDots(m.Data)
	piece := m.ChunkBytes
	if piece <= 0 {
		piece = len(data)
	}
	for len(data) > 0 {
		n := min(piece, len(data))
		if err := c.write(data[:n]); err != nil {
			return err
		}
		if data = data[n:]; m.ChunkDelay > 0 {
			select {
			case <-time.After(m.ChunkDelay):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// stuffDots returns the message as DATA takes it, final dot included (RFC 5321
// §4.5.2).
func stuffDots(message []byte) []byte {
	out := make([]byte, 0, len(message)+len(message)/64+8)
	if bytes.HasPrefix(message, []byte(".")) {
		out = append(out, '.')
	}
	for rest := message; len(rest) > 0; {
		line := rest
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			line = rest[:i+1]
		}
		out = append(out, line...)
		if rest = rest[len(line):]; len(rest) > 0 && rest[0] == '.' {
			out = append(out, '.')
		}
	}
	if !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	return append(out, ".\r\n"...)
}

func joinArgs(command, args string) string {
	if args == "" {
		return command
	}
	return command + " " + args
}

// Close says QUIT and closes the connection.
func (c *Client) Close() error {
	_, err := c.Command("QUIT")
	return errors.Join(err, c.conn.Close())
}

// Abort closes the connection without a word.
func (c *Client) Abort() error { return c.conn.Close() }

// Send opens a connection, sends the messages one after the other and closes it.
// It returns as many results as messages were sent.
func Send(ctx context.Context, addr string, options ClientOptions, mails ...Mail) ([]Result, error) {
	c, err := Dial(ctx, addr, options)
	if err != nil {
		return nil, err
	}
	var results []Result
	for _, m := range mails {
		res, err := c.Send(ctx, m)
		results = append(results, res)
		if err != nil {
			_ = c.Abort() // the first error is the one that tells
			return results, err
		}
	}
	return results, c.Close()
}

// greets asks once whether an SMTP server answers 220.
func greets(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	var code [4]byte
	if _, err := io.ReadFull(conn, code[:]); err != nil {
		return err
	}
	if string(code[:3]) != "220" {
		return fmt.Errorf("%s greets with %q", addr, code)
	}
	_, err = io.WriteString(conn, "QUIT\r\n")
	return err
}
