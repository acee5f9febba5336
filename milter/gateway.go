package milter

import (
	"context"

	"sluice/internal/envelope"
	"sluice/internal/mail"
	"sluice/policy"
)

// Gateway is what a session needs of the rest of the program: it judges
// messages. Implementations are safe for concurrent use.
type Gateway interface {
	// Begin is called at MAIL FROM. The message it returns is written by the
	// session and closed by the Run, or by the session if no Run came of it. An
	// error is answered with 451.
	Begin(env *envelope.Envelope) (*mail.Message, error)
	// Start is called when the header section is complete and the body is about
	// to follow: the envelope is final. (An MTA that tells its queue ID only later
	// has it passed to Finish.) ctx ends with the session.
	Start(ctx context.Context, env *envelope.Envelope, msg *mail.Message) Run
}

// Run is one message on its way through the gateway. Exactly one of Finish and
// Abandon is called, then the session forgets it.
type Run interface {
	// Finish is called once, after the last body byte; it returns what to do. It never
	// fails: what goes wrong is a Disposition with a 4xx reply. queueID is the MTA's
	// name of the message. ctx is cancelled if the MTA goes away; the time budget is the gateway's.
	Finish(ctx context.Context, queueID string) policy.Disposition
	// Answered is called after Finish, once the reply has been written, or with the error
	// that kept it from being written. It releases the message.
	Answered(err error)
	// Abandon is called instead of Finish if the message ended without an end of
	// message (ABORT, lost connection, malformed frame, too large). It releases the message.
	Abandon(reason string)
}
