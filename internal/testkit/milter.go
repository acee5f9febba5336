package testkit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// MTA is whose habits a MilterClient has.
type MTA uint8

// The habits: Postfix 3.7 and Sendmail 8.17, as they were observed.
const (
	PostfixMTA MTA = iota
	SendmailMTA
)

// The steps of the milter protocol (SMFIP_…) that a filter may ask for.
const (
	StepNoConnect       = 0x1
	StepNoHelo          = 0x2
	StepNoMail          = 0x4
	StepNoRcpt          = 0x8
	StepNoBody          = 0x10
	StepNoHeaders       = 0x20
	StepNoEOH           = 0x40
	StepNoHeaderReply   = 0x80
	StepNoUnknown       = 0x100
	StepNoData          = 0x200
	StepSkip            = 0x400
	StepRejectedRcpts   = 0x800
	StepNoConnectReply  = 0x1000
	StepNoHeloReply     = 0x2000
	StepNoMailReply     = 0x4000
	StepNoRcptReply     = 0x8000
	StepNoDataReply     = 0x10000
	StepNoUnknownReply  = 0x20000
	StepNoEOHReply      = 0x40000
	StepNoBodyReply     = 0x80000
	StepHeaderLeadSpace = 0x100000
)

// maxMilterFrame bounds what a filter may send in one frame.
const maxMilterFrame = 1 << 20

// maxModifications bounds what a filter may send before its final reply.
const maxModifications = 10_000

// MilterOptions say how a MilterClient speaks. The zero value is Postfix 3.7.
type MilterOptions struct {
	MTA MTA
	// Version, Actions and Steps are what is offered; 0 means 6, 0x1ff, 0x1fffff.
	Version, Actions, Steps uint32
	// CommandTimeout bounds each wait up to DATA, ContentTimeout each after; 0 means
	// 30 s and 300 s.
	CommandTimeout, ContentTimeout time.Duration
	// NoAbort leaves out the ABORT that Postfix sends after each message. (Sendmail
	// sends none.)
	NoAbort bool
}

// MilterMail is one message as an MTA hands it to a filter.
type MilterMail struct {
	// ClientName, ClientAddr, ClientPort and Helo are told with the first message of
	// a connection only. The zero address is local submission: Postfix then says
	// localhost, 127.0.0.1, port 0, Sendmail names no address at all.
	ClientName string
	ClientAddr netip.Addr
	ClientPort uint16
	Helo       string
	// Daemon is {daemon_name}, Login {auth_authen}, QueueID the macro i.
	Daemon, Login, QueueID string
	// Sender and Recipients are paths without angle brackets; a Recipient may bear
	// arguments after a blank, as may the Sender: "a@example.org BODY=8BITMIME".
	Sender     string
	Recipients []string
	// Data is the message with CRLF line ends.
	Data []byte
	// ChunkBytes, if set, is the largest body frame (an MTA's is 65535), ChunkDelay
	// a pause after each: a client that streams.
	ChunkBytes int
	ChunkDelay time.Duration
}

// MilterReply is a filter's answer to one command. Code is the letter of the
// protocol: c continue, a accept, r reject, t tempfail, d discard, y reply code,
// s skip, 4 shutdown, f connection failure. 0 means that none was expected.
type MilterReply struct {
	Code byte
	Text string // of y: "550 5.7.1 text", lines parted by CRLF
}

// SMTP returns what Postfix would tell its client.
func (r MilterReply) SMTP() string {
	switch r.Code {
	case 'y':
		return r.Text
	case 'r':
		return "550 5.7.1 Command rejected"
	case 't':
		return "451 4.7.1 Service unavailable - try again later"
	case '4', 'f':
		return "421 4.7.0 closing connection"
	default:
		return "250 2.0.0 Ok"
	}
}

func (r MilterReply) refuses() bool { return strings.IndexByte("rty4f", r.Code) >= 0 && r.Code != 0 }

// MilterResult is what a filter did with one message.
type MilterResult struct {
	// Stage is the command that settled it: C H M R T L N B E.
	Stage byte
	// Reply is the answer to that command.
	Reply MilterReply
	// Recipients are the answers to each RCPT, as far as it got; zero where none
	// was expected.
	Recipients []MilterReply
	// Modifications are in the order they came.
	Modifications []Modification
	// Progress counts SMFIR_PROGRESS, Stray the bytes that were there after the
	// final reply, which a sound filter never sends.
	Progress, Stray int
	// Waited is the time from the last byte handed over to the final reply.
	Waited time.Duration
}

// MilterClient is one milter connection. It is for one goroutine.
type MilterClient struct {
	options MilterOptions
	conn    net.Conn
	r       *bufio.Reader
	w       *bufio.Writer
	frame   []byte // of the last read
	scratch []byte // payload being built
	// Version, Actions and Steps are what the filter answered.
	Version, Actions, Steps uint32
	symbols                 map[byte][]string // macros the filter asked for, by stage
	told                    bool              // connect and HELO have been sent
	settled                 *MilterReply      // accept or refusal of the whole connection
}

// DialMilter connects and negotiates. network is "unix" or "tcp".
func DialMilter(ctx context.Context, network, addr string, options MilterOptions) (*MilterClient, error) {
	orNumber := func(n, otherwise uint32) uint32 {
		if n == 0 {
			return otherwise
		}
		return n
	}
	options.Version = orNumber(options.Version, 6)
	options.Actions = orNumber(options.Actions, 0x1ff)
	options.Steps = orNumber(options.Steps, 0x1fffff)
	options.CommandTimeout = orDefault(options.CommandTimeout, 30*time.Second)
	options.ContentTimeout = orDefault(options.ContentTimeout, 300*time.Second)
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &MilterClient{options: options, conn: conn, r: bufio.NewReaderSize(conn, 4<<10), w: bufio.NewWriterSize(conn, 32<<10)}
	if err := c.negotiate(); err != nil {
		_ = conn.Close() // the first error is the one that tells
		return nil, fmt.Errorf("milter: negotiate: %w", err)
	}
	return c, nil
}

func (c *MilterClient) negotiate() error {
	p := binary.BigEndian.AppendUint32(c.scratch[:0], c.options.Version)
	p = binary.BigEndian.AppendUint32(p, c.options.Actions)
	p = binary.BigEndian.AppendUint32(p, c.options.Steps)
	c.write('O', p)
	code, body, err := c.read(c.options.CommandTimeout)
	if err != nil {
		return err
	}
	if code != 'O' || len(body) < 12 {
		return fmt.Errorf("answered with %q and %d bytes", code, len(body))
	}
	c.Version, c.Actions, c.Steps = binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:]), binary.BigEndian.Uint32(body[8:])
	if c.Version < 2 || c.Version > c.options.Version {
		return fmt.Errorf("version %d was asked of an offer of %d", c.Version, c.options.Version)
	}
	if extra := c.Actions &^ c.options.Actions; extra != 0 {
		return fmt.Errorf("actions %#x were not offered", extra)
	}
	if extra := c.Steps &^ c.options.Steps; extra != 0 {
		return fmt.Errorf("steps %#x were not offered", extra)
	}
	return c.readSymbols(body[12:])
}

// readSymbols reads the lists of macros that follow an answer: a stage's number
// and a list of names, ended by NUL.
func (c *MilterClient) readSymbols(b []byte) error {
	c.symbols = map[byte][]string{}
	const stages = "CHMRTEN" // in the order of their numbers (SMFIM_…)
	for len(b) > 0 {
		end := -1
		if len(b) >= 5 {
			end = bytes.IndexByte(b[4:], 0)
		}
		if end < 0 {
			return errors.New("a list of macros without end")
		}
		n := binary.BigEndian.Uint32(b)
		if n >= uint32(len(stages)) {
			return fmt.Errorf("a list of macros for stage %d", n)
		}
		c.symbols[stages[n]] = strings.Fields(string(b[4 : 4+end]))
		b = b[4+end+1:]
	}
	return nil
}

// Send hands over one message as the MTA does and returns what the filter made of
// it. A refusal is a result; the error tells that the protocol broke, a deadline
// passed or ctx ended, and that the connection is of no more use.
func (c *MilterClient) Send(ctx context.Context, m MilterMail) (MilterResult, error) {
	if err := ctx.Err(); err != nil {
		return MilterResult{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	t := transaction{c: c, m: &m}
	err := t.run(ctx)
	if err != nil {
		return t.result, fmt.Errorf("milter: at %c: %w", t.result.Stage, err)
	}
	t.result.Stray = c.r.Buffered()
	return t.result, nil
}

// Abort sends ABORT, as an MTA does when its client resets or goes away.
func (c *MilterClient) Abort() error {
	c.write('A', nil)
	return c.flush(c.options.CommandTimeout)
}

// Unknown sends an SMTP command that the MTA doesn't know, if the filter wants
// such, and returns its answer.
func (c *MilterClient) Unknown(line string) (MilterReply, error) {
	if c.Version < 3 || c.Steps&StepNoUnknown != 0 {
		return MilterReply{}, nil
	}
	c.write('U', append(append(c.scratch[:0], line...), 0))
	return c.reply(StepNoUnknownReply, c.options.CommandTimeout, nil)
}

// Raw writes bytes as they are, for malformed frames.
func (c *MilterClient) Raw(b []byte) error {
	_, _ = c.w.Write(b) // shows at flush
	return c.flush(c.options.CommandTimeout)
}

// ReadReply waits for one reply, for use after Raw. io.EOF tells that the filter
// closed the connection.
func (c *MilterClient) ReadReply() (code byte, body []byte, err error) {
	return c.read(c.options.CommandTimeout)
}

// Close says QUIT, as Postfix after one more ABORT, and closes the connection.
func (c *MilterClient) Close() error {
	if c.options.MTA == PostfixMTA && !c.options.NoAbort {
		c.write('A', nil)
	}
	c.write('Q', nil)
	return errors.Join(c.flush(c.options.CommandTimeout), c.conn.Close())
}

// Drop closes the connection without a word.
func (c *MilterClient) Drop() error { return c.conn.Close() }

// write puts one frame into the buffer. Its errors show at flush.
func (c *MilterClient) write(code byte, payload []byte) {
	var head [5]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(payload)+1))
	head[4] = code
	_, _ = c.w.Write(head[:])
	_, _ = c.w.Write(payload)
}

func (c *MilterClient) flush(timeout time.Duration) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	return c.w.Flush()
}

// read flushes and reads one frame; its body is valid until the next read.
func (c *MilterClient) read(timeout time.Duration) (code byte, body []byte, err error) {
	if err := c.flush(timeout); err != nil {
		return 0, nil, err
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return 0, nil, err
	}
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxMilterFrame {
		return 0, nil, fmt.Errorf("a frame of %d bytes", n)
	}
	if n--; int(n) > cap(c.frame) {
		c.frame = make([]byte, n)
	}
	c.frame = c.frame[:n]
	if _, err := io.ReadFull(c.r, c.frame); err != nil {
		return 0, nil, err
	}
	return head[4], c.frame, nil
}

// reply reads the answer to a command unless the filter said that it gives none
// (noReply of its steps). Modifications and progress go to result, which is nil
// where they aren't allowed.
func (c *MilterClient) reply(noReply uint32, timeout time.Duration, result *MilterResult) (MilterReply, error) {
	if c.Steps&noReply != 0 {
		return MilterReply{}, nil
	}
	for {
		code, body, err := c.read(timeout)
		if err != nil {
			return MilterReply{}, err
		}
		switch code {
		case 'c', 'a', 'r', 't', 'd', 's', '4', 'f':
			return MilterReply{Code: code}, nil
		case 'y':
			text, ok := bytes.CutSuffix(body, []byte{0})
			if !ok || len(text) < 4 || text[0] != '4' && text[0] != '5' {
				return MilterReply{}, fmt.Errorf("malformed reply %q", body)
			}
			return MilterReply{Code: code, Text: string(text)}, nil
		case 'p':
			if result != nil {
				result.Progress++
			}
		default:
			m, err := parseModification(code, body)
			if err != nil {
				return MilterReply{}, err
			}
			if result == nil || len(result.Modifications) == maxModifications {
				return MilterReply{}, fmt.Errorf("modification %q out of place", code)
			}
			result.Modifications = append(result.Modifications, m)
		}
	}
}
