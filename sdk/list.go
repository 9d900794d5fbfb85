package sdk

import (
	"context"
	"errors"
	"strings"

	"github.com/werbenhu/registry/rpc/registrypb"
)

const (
	// pageSize is the largest; a node ends a page at about 1 MiB.
	pageSize = 10_000
	// pageTries bounds how often a listing is started because the nodes no longer
	// have the revision of its first page.
	pageTries = 5
)

// Members lists the group's members, ordered by id, whatever their state.
func (c *Client) Members(ctx context.Context, group string, opts ...ReadOption) ([]Member, error) {
	_, ms, err := c.Group(ctx, group, opts...)
	return ms, err
}

// Group returns the group and its members, ordered by id. They are read in pages of
// about 1 MiB, all of one revision: that of the receipt. If the nodes no longer have
// that revision, the listing starts over; after five times it is ErrRevisionMismatch.
func (c *Client) Group(ctx context.Context, group string, opts ...ReadOption) (g Group, ms []Member, err error) {
	for range pageTries {
		g, ms, err = c.group(ctx, group, readOptionsOf(opts))
		if !errors.Is(err, ErrRevisionMismatch) {
			break
		}
	}
	return g, ms, err
}

func (c *Client) group(ctx context.Context, group string, o readOptions) (Group, []Member, error) {
	req := &registrypb.MembersRequest{Group: group, PageSize: pageSize}
	first, err := c.membersPage(ctx, req, o)
	if err != nil {
		return Group{}, nil, err
	}
	g := groupFromProto(&registrypb.Group{Name: group, Config: first.GetConfig(), Revision: first.GetReceipt().GetRevision()})
	ms := membersFromProto(first.GetMembers())
	for token := first.GetNextPageToken(); token != ""; {
		req := &registrypb.MembersRequest{Group: group, PageSize: pageSize, PageToken: token}
		// A node that has applied the index of the first page knows its revision.
		page, err := c.membersPage(ctx, req, readOptions{minIndex: first.GetReceipt().GetIndex()})
		if err != nil {
			return Group{}, nil, err
		}
		if len(page.GetMembers()) == 0 || page.GetNextPageToken() == token {
			return Group{}, nil, &Error{Op: "members", Message: "malformed answer: a page without members"}
		}
		ms = append(ms, membersFromProto(page.GetMembers())...)
		token = page.GetNextPageToken()
	}
	g.Members = len(ms)
	return g, ms, nil
}

func (c *Client) membersPage(ctx context.Context, req *registrypb.MembersRequest, o readOptions) (resp *registrypb.MembersResponse, err error) {
	err = c.readCall(ctx, "members", req, o, func(ctx context.Context, a *attempt) (r *registrypb.Receipt, err error) {
		req.Read = a.read
		resp, err = a.registry().Members(ctx, req, a.opts...)
		return resp.GetReceipt(), err
	})
	return resp, err
}

// groupReceipt returns the leader's receipt of a group.
func (c *Client) groupReceipt(ctx context.Context, group string) (Receipt, error) {
	var r Receipt
	_, err := c.membersPage(ctx, &registrypb.MembersRequest{Group: group, PageSize: 1}, readOptionsOf([]ReadOption{Linearizable(), WithReceipt(&r)}))
	return r, err
}

// Groups lists the groups, ordered by name. They are read in pages of about 1 MiB,
// each of the node's state at that time: a group that is created or deleted
// meanwhile may or may not be listed. The receipt is that of the first page.
func (c *Client) Groups(ctx context.Context, opts ...ReadOption) ([]Group, error) {
	return c.GroupsWithPrefix(ctx, "", opts...)
}

// GroupsWithPrefix is Groups for the groups whose names begin with the prefix, at most
// 255 bytes. A token that may discover groups of one prefix only lists these.
func (c *Client) GroupsWithPrefix(ctx context.Context, prefix string, opts ...ReadOption) ([]Group, error) {
	var out []Group
	err := c.groupsPages(ctx, prefix, readOptionsOf(opts), func(page *registrypb.GroupsResponse) {
		for _, g := range page.GetGroups() {
			if strings.HasPrefix(g.GetName(), prefix) { // a node of 0.1.0 sends all
				out = append(out, groupFromProto(g))
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// groupsPages calls f with each page of the list of groups that begin with the prefix.
func (c *Client) groupsPages(ctx context.Context, prefix string, o readOptions, f func(*registrypb.GroupsResponse)) error {
	for token := ""; ; {
		page, err := c.groupsPage(ctx, prefix, token, o)
		if err != nil {
			return err
		}
		f(page)
		last := token
		if token = page.GetNextPageToken(); token == "" {
			return nil
		}
		if token <= last {
			return &Error{Op: "groups", Message: "malformed answer: the next page does not begin after this one"}
		}
		o = readOptions{minIndex: page.GetReceipt().GetIndex()}
	}
}

func (c *Client) groupsPage(ctx context.Context, prefix, token string, o readOptions) (resp *registrypb.GroupsResponse, err error) {
	req := &registrypb.GroupsRequest{PageSize: pageSize, PageToken: token, Prefix: prefix}
	err = c.readCall(ctx, "groups", req, o, func(ctx context.Context, a *attempt) (r *registrypb.Receipt, err error) {
		req.Read = a.read
		resp, err = a.registry().Groups(ctx, req, a.opts...)
		return resp.GetReceipt(), err
	})
	return resp, err
}
