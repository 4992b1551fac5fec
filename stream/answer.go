package stream

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

type answerKind uint8

const (
	answerNone    answerKind = iota // not answered yet
	answerStored                    // stored at seq
	answerRaced                     // somebody else's message, or an earlier attempt of ours, is in its place
	answerFull                      // no room at present
	answerLost                      // perhaps stored, perhaps not
	answerRefused                   // refused for good
)

// answer is what became of a flight.
type answer struct {
	kind answerKind
	seq  uint64
	text string
}

// Error codes of JetStream that the client library has no name for.
const (
	codeAccountResources      = 10002
	codeInsufficientResources = 10023
	codeStorageResources      = 10047
	codeWrongLastMsgID        = 10070
	codeStoreFailed           = 10077
	codeWrongLastSeqConstant  = 10164
)

// subscribe opens the inbox of answers.
func (p *publisher) subscribe() error {
	if p.sub != nil {
		return nil
	}
	p.inbox = nats.NewInbox() + "."
	sub, err := p.lane.bus.nc.Subscribe(p.inbox+"*", p.answered)
	if err != nil {
		return fmt.Errorf("lane %q: %w", p.lane.name, err)
	}
	p.sub = sub
	return nil
}

// answered runs in a goroutine of the client library. Answers to attempts that were given up are passed over.
func (p *publisher) answered(msg *nats.Msg) {
	token, err := strconv.ParseUint(strings.TrimPrefix(msg.Subject, p.inbox), 10, 64)
	if err != nil {
		return
	}
	a := parseAnswer(msg)
	p.mu.Lock()
	for _, f := range p.flights {
		if f.token == token && f.answer.kind == answerNone {
			f.answer = a
			p.lane.metrics.ackSeconds.Observe(time.Since(f.sent).Seconds())
		}
	}
	p.mu.Unlock()
	select {
	case p.notify <- struct{}{}:
	default:
	}
}

func parseAnswer(msg *nats.Msg) answer {
	if len(msg.Data) == 0 {
		return answer{kind: answerLost, text: "no stream took the message (status " + msg.Header.Get("Status") + ")"}
	}
	var ack struct {
		Seq   uint64              `json:"seq"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &ack); err != nil {
		return answer{kind: answerLost, text: err.Error()}
	}
	if ack.Error == nil {
		return answer{kind: answerStored, seq: ack.Seq}
	}
	a := answer{text: ack.Error.Description}
	switch ack.Error.ErrorCode {
	case jetstream.JSErrCodeStreamWrongLastSequence, codeWrongLastMsgID, codeWrongLastSeqConstant:
		a.kind = answerRaced
	case codeAccountResources, codeInsufficientResources, codeStorageResources:
		a.kind = answerFull
	case codeStoreFailed:
		a.kind = answerRefused
		if strings.Contains(a.text, "maximum bytes") {
			a.kind = answerFull
		}
	default:
		a.kind = answerRefused
		if ack.Error.Code >= 500 { // the server's trouble, not the message's
			a.kind = answerLost
		}
	}
	return a
}
