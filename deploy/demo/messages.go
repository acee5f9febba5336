package main

import (
	"bytes"
	"fmt"
	"slices"

	"sluice/internal/testkit"
)

// message is one mail of the demo and what should become of it.
type message struct {
	name string
	// sender is "" for alice@example.net, "<>" for the null sender; no recipients
	// mean bob alone.
	sender     string
	recipients []string
	data       []byte
	// reply is how the reply to the final dot begins.
	reply string
	// arrives are the recipients whose mailbox gets it.
	arrives []string
	// bears are fields that must be there once, and how their value begins; lacks are
	// texts that mustn't stand in the header.
	bears map[string]string
	lacks []string
}

const (
	bob     = "bob@example.org"
	tagged  = "bob@tag.example.org"
	dropped = "bob@drop.example.org"
)

// clean is what mail that nothing is wrong with bears.
var clean = map[string]string{"X-Spam-Status": "No, score=", "X-Virus-Status": "Clean", "X-Sluice-ID": ""}

// compose makes a message with an ID of its own, as mail programs do.
func compose(id, subject string, parts ...testkit.Part) []byte {
	return testkit.WithFields(testkit.Compose(subject, parts...), fmt.Sprintf("Message-ID: <%s.20261102@mail.example.net>", id))
}

func newsletter() []byte {
	html := "<html><body><h1>Winter in the garden</h1><p>Cover the roses before the first hard frost, and leave the seed heads to the birds.\n" +
		`<a href="https://www.example.net/roses">How to do it</a></p></body></html>`
	return testkit.WithFields(compose("news", "Winter in the garden", testkit.HTML(html)), "List-Unsubscribe: <https://www.example.net/leave>")
}

// messages are what an outside client sends while all is well.
func messages() ([]message, error) {
	inZip, err := testkit.Zip("invoice.com", []byte(testkit.EICAR()))
	if err != nil {
		return nil, err
	}
	text, virus := testkit.Text, testkit.Attachment("invoice.com", []byte(testkit.EICAR()))
	lunch, invoice, spam := text("Shall we meet at noon?\n"), text("Please see the attachment.\n"), text("Dear friend,\n\n"+testkit.GTUBE()+"\n")
	forged := testkit.WithFields(compose("forged", "Forged verdicts", text("Somebody else's verdict stands in the header.\n")),
		"X-Spam-Flag: YES", "X-Spam-Status: No, score=-100 planted", "X-Virus-Status: Clean (planted)", "X-Sluice-ID: planted")
	all := []message{
		{name: "clean", data: compose("clean", "Lunch on Friday?", lunch), arrives: []string{bob}},
		{name: "HTML newsletter", data: newsletter(), arrives: []string{bob}},
		{name: "virus, plain", data: compose("eicar", "Invoice", invoice, virus), reply: "550 5.7.1"},
		{name: "virus in a zip", data: compose("zip", "Invoice", invoice, testkit.Attachment("invoice.zip", inZip)), reply: "550 5.7.1"},
		{name: "virus in a nested message", data: compose("nested", "Fwd: Invoice", text("Forwarded:\n"), testkit.Forwarded(compose("inner", "Invoice", invoice, virus))), reply: "550 5.7.1"},
		{name: "spam, refused", data: compose("spam1", "Win", spam), reply: "550 5.7.1"},
		{name: "spam, tagged", recipients: []string{tagged}, data: compose("spam2", "Win", spam), arrives: []string{tagged},
			bears: map[string]string{"Subject": "[SPAM] Win", "X-Spam-Flag": "YES", "X-Spam-Status": "Yes, score=1000"}},
		{name: "spam, discarded", recipients: []string{dropped}, data: compose("spam3", "Win", spam)},
		{name: "spam, discarded for one and tagged for another", recipients: []string{dropped, tagged}, data: compose("spam4", "Win", spam), arrives: []string{tagged},
			bears: map[string]string{"Subject": "[SPAM] Win", "X-Spam-Flag": "YES"}},
		{name: "several recipients", recipients: []string{bob, "carol@example.org", tagged}, data: compose("several", "Minutes", text("The minutes of Monday.\n")),
			arrives: []string{bob, "carol@example.org", tagged}},
		{name: "forged verdict fields", data: forged, arrives: []string{bob}, lacks: []string{"planted", "X-Spam-Flag"}},
		{name: "8-bit", data: compose("eightbit", "Grüße", text("Grüße aus Zürich, 20 € für Käse.\n")), arrives: []string{bob}},
		{name: "5 MB", data: compose("large", "Pictures", lunch, testkit.Attachment("pictures.bin", bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16*3/4))), arrives: []string{bob}},
		{name: "null sender", sender: "<>", data: compose("bounce", "Delivery Status Notification", text("Your mail of Monday could not be delivered.\n")), arrives: []string{bob}},
	}
	for i := range all {
		m := &all[i]
		if m.reply == "" {
			m.reply = "250"
		}
		if m.bears == nil {
			m.bears = clean
		}
		if m.recipients == nil {
			m.recipients = []string{bob}
		}
		slices.Sort(m.arrives)
	}
	return all, nil
}
