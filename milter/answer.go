package milter

import (
	"context"
	"errors"
	"fmt"

	gomilter "github.com/emersion/go-milter"

	"sluice/policy"
)

// errNotPermitted: the MTA doesn't permit a change without which the disposition would be
// another one.
var errNotPermitted = errors.New("the MTA doesn't permit a change that the disposition needs")

// Body implements gomilter.Milter: the end of the message. Changes and reply are written
// here, in one run, since the gateway must be told whether they went out.
func (h *handler) Body(*gomilter.Modifier) (gomilter.Response, error) {
	return h.guard(func() gomilter.Response {
		if h.m == nil {
			return h.refuse()
		}
		h.chunk() // libmilter lets the end of message bring the last one
		m := h.m
		if m.failed.Code == 0 {
			h.written(m.msg.Complete())
		}
		if m.failed.Code != 0 {
			resp := customReply(m.failed)
			h.forget()
			return resp
		}
		h.finish(m)
		return nil // it has been written
	})
}

// finish has the run say what to do, and does it.
func (h *handler) finish(m *message) {
	run := m.run
	m.run, m.msg = nil, nil // from here on it is Answered, not Abandon
	queueID := h.c.macros.get("i")

	ctx, cancel := context.WithCancel(m.ctx)
	defer cancel()
	d := policy.Disposition{Reply: h.unavailable()} // stays if Finish panics
	gone := h.c.attend(cancel, func() {
		h.protect(func() { d = run.Finish(ctx, queueID) })
	})
	var err error
	if gone != nil {
		err = fmt.Errorf("MTA is gone: %w", gone)
		h.c.due = false
		h.c.fail(err)
		h.o.Metrics.aborted.Inc()
	} else {
		var frames []byte
		frames, err = h.frames(h.c.out[:0], m, &d)
		err = errors.Join(err, h.c.answer(frames))
		if h.c.out = frames[:0]; cap(frames) > 16<<10 {
			h.c.out = nil
		}
	}
	h.protect(func() { run.Answered(err) })
	h.forget()
}

// frames appends what carries out a disposition: the changes if the message goes on, then
// the reply. If a change that decides who gets the message isn't permitted the reply
// is 451 and the error says so.
func (h *handler) frames(b []byte, m *message, d *policy.Disposition) ([]byte, error) {
	switch {
	case !d.Reply.Accepted():
		return appendReply(b, d.Reply), nil
	case d.Discard:
		return appendFrame[string](b, byte(gomilter.ActDiscard)), nil
	}
	if err := h.permitted(m, d); err != nil {
		h.log.Error("disposition can't be carried out", "queue_id", h.c.macros.get("i"), "err", err)
		return appendReply(b, h.unavailable()), err
	}
	b, skipped := appendEdits(b, d, h.c.terms)
	if skipped > 0 {
		h.skipped(h.c.macros.get("i"), skipped)
	}
	return appendFrame[string](b, byte(gomilter.ActAccept)), nil
}

// permitted checks the changes of recipients.
func (h *handler) permitted(m *message, d *policy.Disposition) error {
	may := h.c.terms.actions
	if len(d.RemoveRecipients) > 0 && may&gomilter.OptRemoveRcpt == 0 || len(d.AddRecipients) > 0 && may&gomilter.OptAddRcpt == 0 {
		return errNotPermitted
	}
	if len(d.RemoveRecipients) == 0 || len(d.AddRecipients) > 0 {
		return nil
	}
	removed := make(map[string]bool, len(d.RemoveRecipients))
	for _, r := range d.RemoveRecipients {
		removed[r] = true
	}
	for _, r := range m.env.Recipients {
		if !removed[r.Address.String()] {
			return nil
		}
	}
	return errors.New("nobody would be left and the mail would vanish with 250")
}
