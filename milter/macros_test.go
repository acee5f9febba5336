package milter

import (
	"strings"
	"testing"

	gomilter "github.com/emersion/go-milter"
)

func TestMacrosByStage(t *testing.T) {
	for _, tt := range []struct {
		name string
		// steps are macro frames ("M{auth_authen}=u") and commands ("M").
		steps string
		want  map[string]string // "" = not known
	}{
		{"later stages see earlier ones", "Cj=mx C H Mi=Q M R N E", map[string]string{"j": "mx", "i": "Q"}},
		{"the latest stage wins", "Mi=one M Ei=two E", map[string]string{"i": "two"}},
		{"a stage's set is replaced", "C{aa}=1 C{bb}=2 C", map[string]string{"{aa}": "", "{bb}": "2"}},
		{"MAIL without macros ends those of the last message", "M{auth_authen}=u,i=Q M M", map[string]string{"{auth_authen}": "", "i": ""}},
		{"MAIL keeps those that came with it", "M{auth_authen}=u M M{auth_authen}=v M", map[string]string{"{auth_authen}": "v"}},
		{"MAIL ends later stages", "Mi=1 M Ri=2 R Li=3 L Mi=4 M", map[string]string{"i": "4"}},
		{"HELO ends HELO's and later ones", "C{aa}=1 C H{tls}=2 H M{bb}=3 M H", map[string]string{"{aa}": "1", "{tls}": "", "{bb}": ""}},
		{"HELO after STARTTLS", "H H{tls}=2 H M", map[string]string{"{tls}": "2"}},
		{"CONNECT ends all", "C{aa}=1 C H{bb}=2 H C{cc}=3 C", map[string]string{"{aa}": "", "{bb}": "", "{cc}": "3"}},
		{"each recipient has its own", "R{rcpt_addr}=a R R", map[string]string{"{rcpt_addr}": ""}},
		{"header fields don't need theirs anew", "Li=Q L L E", map[string]string{"i": "Q"}},
		{"one letter in braces", "M{i}=Q M", map[string]string{"i": "Q"}},
		{"a stage that isn't known", "Ui=Q U", map[string]string{"i": ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m macroStore
			for step := range strings.FieldsSeq(tt.steps) {
				if len(step) == 1 {
					m.begin(gomilter.Code(step[0]))
					continue
				}
				pairs := strings.NewReplacer("=", "\x00", ",", "\x00").Replace(step[1:])
				if !m.set([]byte(step[:1] + pairs + "\x00")) {
					t.Fatalf("%s is refused", step)
				}
			}
			for name, want := range tt.want {
				if got := m.get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			m.endMessage()
			if got := m.get("i"); got != "" {
				t.Errorf("after the message i is %q", got)
			}
		})
	}
}
