"""The keys of the list, the questions that some of them begin with, and the page that explains them."""

KEYS = (
    ("j,down", "move(1)"), ("k,up", "move(-1)"), ("space,pagedown,ctrl+f", "page(1)"), ("minus,pageup,ctrl+b", "page(-1)"),
    ("equals_sign,home", "edge(0)"), ("asterisk,end", "edge(1)"), ("tab", "unread"), ("enter", "work('read')"),
    ("d", "mark('\\\\Deleted', 1, 1)"), ("u", "mark('\\\\Deleted', 0, 1)"), ("N", "turn('\\\\Seen')"),
    ("F", "turn('\\\\Flagged')"), ("D", "ask('delete_pattern')"), ("U", "ask('undelete_pattern')"), ("t", "tag"),
    ("T", "ask('tag_pattern')"), ("semicolon", "tagged"), ("l", "ask('limit')"), ("slash", "ask('search')"), ("n", "again"),
    ("o", "work('order')"), ("c", "ask('change')"), ("y", "work('folders')"), ("r", "work('reply')"), ("g", "work('group')"),
    ("f", "work('forward')"), ("m", "ask('new')"), ("v", "work('attachments')"), ("J", "work('journey')"),
    ("s", "ask('move_to')"), ("C", "ask('copy_to')"), ("dollar_sign", "work('sync')"), ("q", "work('leave')"),
    ("x", "work('exit')"), ("question_mark", "work('help')"), ("ctrl+r", "work('reload')"),
)  # fmt: skip

QUESTIONS = {
    "limit": "Limit to: ", "search": "Search: ", "change": "Open folder: ", "tag_pattern": "Tag: ", "delete_pattern": "Delete: ",
    "undelete_pattern": "Undelete: ", "move_to": "Move to folder: ", "copy_to": "Copy to folder: ", "new": "To: ",
}  # fmt: skip

HELP = """\
Moving      j k, arrows: next, previous   Space -: page   = *: first, last   Tab: next unread
Reading     Enter: the letter   v: what is attached   J: the way it took and how it was protected
Marking     d u: delete, undelete   D U: by pattern   N: read or not   F: flag   t T: tag, by pattern
            ;  then a key: for all that are tagged
Finding     /: search   n: again   l: show only what matches (~A or nothing: all)   o: threads or by date
Answering   r: reply   g: reply to everybody   f: forward   m: a new letter
Folders     c: change to one by name   y: the list   s: move into one   C: copy into one
The end     $: tell the server what was changed   q: that, then leave   x: leave without it
            Ctrl-R: read the folder again

Patterns    ~f from   ~t to   ~s subject   ~L from or to   ~b in the body   ~B anywhere   ~i Message-ID   ~q seal
            ~N unread   ~R read   ~F flagged   ~D deleted   ~Q answered   ~T tagged   ~A all
            a word alone: from or subject;   | or   ! not   ( )

Seals       ● sealed: encrypted on every leg, and each peer proved who it is
            ◐ covered: encrypted, but a peer proved nothing    ○ open: somebody could read it    · not known
            A server of ours says this of each letter; other servers do not know.
The last line but one is the road: how the connection to the server is protected now.
"""
