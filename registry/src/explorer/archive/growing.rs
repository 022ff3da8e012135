//! A tree while its archive is read.

use std::collections::HashMap;
use std::sync::Arc;

use super::limits::Limits;
use super::members::Member;
use super::tree::{Kind, Node, TOP, Tree, index};
use super::unreadable::Cut;

/// About how many bytes a name takes besides itself.
const PLACE: usize = 64;

/// Takes entries in the order of the archive. As when it is extracted, a later entry takes the place of an earlier one
/// of the same path: a folder stays what it was if a folder comes again, and goes with all below it if anything else
/// does.
pub(super) struct Growing<'a> {
    limits: &'a Limits<'a>,
    tree: Tree,
    /// Where a name is in the list of names.
    known: HashMap<Arc<str>, u32>,
    /// Bytes of the list of names.
    bytes: usize,
    /// Where the node of a parent and a name is.
    places: HashMap<(u32, u32), u32>,
}

impl<'a> Growing<'a> {
    pub fn new(limits: &'a Limits<'a>) -> Self {
        let names = Vec::from([Arc::from("")]);
        let nodes = Vec::from([Node::implied(TOP, 0)]);
        Self {
            limits,
            tree: Tree {
                nodes,
                names,
                order: Vec::new(),
                cut: None,
                left_out: 0,
            },
            known: HashMap::new(),
            bytes: 0,
            places: HashMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.tree.nodes.len() <= 1
    }

    /// Puts an entry to its place; an error if there is no room for it.
    pub fn add(&mut self, member: &Member) -> Result<(), Cut> {
        let longest = self.limits.path;
        if member.path.len() > longest
            || member
                .target
                .as_ref()
                .is_some_and(|target| target.len() > longest)
        {
            self.tree.left_out = self.tree.left_out.saturating_add(1);
            return Ok(());
        }
        let target = match &member.target {
            Some(target) => Some(self.intern(target)?),
            None => None,
        };
        let mut place = TOP;
        if let Some((folders, name)) = split(&member.path) {
            for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
                place = self.folder(place, folder)?;
            }
            place = self.last(place, name, member.kind)?;
        }
        let node = self.tree.nodes.get_mut(index(place));
        // The top is a folder whatever an entry says about it.
        if let Some(node) = node.filter(|_| place != TOP || member.kind == Kind::Folder) {
            node.kind = member.kind;
            node.mode = member.mode;
            node.bytes = member.size;
            node.target = target;
        }
        Ok(())
    }

    /// The folder of this name, which needs no entry of its own.
    fn folder(&mut self, parent: u32, name: &str) -> Result<u32, Cut> {
        let name = self.intern(name)?;
        match self.places.get(&(parent, name)) {
            Some(place) if self.is_folder(*place) => Ok(*place),
            Some(_) | None => self.put(parent, name),
        }
    }

    /// The place for an entry: a new one if a folder comes for something else, or the other way round.
    fn last(&mut self, parent: u32, name: &str, kind: Kind) -> Result<u32, Cut> {
        let name = self.intern(name)?;
        match self.places.get(&(parent, name)) {
            Some(place) if kind == Kind::Folder && self.is_folder(*place) => Ok(*place),
            Some(place) if kind != Kind::Folder && !self.is_folder(*place) => Ok(*place),
            Some(_) | None => self.put(parent, name),
        }
    }

    /// A new node, in place of what has been there.
    fn put(&mut self, parent: u32, name: u32) -> Result<u32, Cut> {
        let limit = self.limits.entries;
        // The top is no entry.
        if self.tree.nodes.len() > limit {
            return Err(Cut::Entries(limit));
        }
        let place = u32::try_from(self.tree.nodes.len()).map_err(|_| Cut::Entries(limit))?;
        self.tree.nodes.push(Node::implied(parent, name));
        let before = self.places.insert((parent, name), place);
        if let Some(before) = before.and_then(|before| self.tree.nodes.get_mut(index(before))) {
            before.is_gone = true;
        }
        Ok(place)
    }

    fn is_folder(&self, place: u32) -> bool {
        let node = self.tree.nodes.get(index(place));
        node.is_some_and(|node| node.kind == Kind::Folder)
    }

    /// Where a name or target is kept, each different one once. Their places take memory too, however short they are.
    fn intern(&mut self, name: &str) -> Result<u32, Cut> {
        if let Some(known) = self.known.get(name) {
            return Ok(*known);
        }
        let limit = self.limits.names;
        let bytes = self.bytes.saturating_add(name.len() + PLACE);
        let place = u32::try_from(self.tree.names.len()).map_err(|_| Cut::Names(limit))?;
        if bytes > limit {
            return Err(Cut::Names(limit));
        }
        self.bytes = bytes;
        let name: Arc<str> = Arc::from(name);
        self.tree.names.push(Arc::clone(&name));
        self.known.insert(name, place);
        Ok(place)
    }

    /// The tree with its totals and its order.
    pub fn finish(self, cut: Option<Cut>) -> Tree {
        // What only the reading needs is given back before the sorting.
        let mut tree = self.tree;
        drop((self.known, self.places));
        tree.cut = cut;
        remove_gone(&mut tree.nodes);
        add_up(&mut tree.nodes);
        sort(&mut tree);
        tree.nodes.shrink_to_fit();
        tree.names.shrink_to_fit();
        tree
    }
}

impl Node {
    /// A folder that no entry is about, yet.
    fn implied(parent: u32, name: u32) -> Self {
        Self {
            parent,
            name,
            kind: Kind::Folder,
            is_gone: false,
            mode: None,
            bytes: 0,
            files: 0,
            target: None,
            first: 0,
            count: 0,
        }
    }
}

/// The folders and the name of a path; none for the top.
fn split(path: &str) -> Option<(&str, &str)> {
    match path {
        "" => None,
        path => Some(path.rsplit_once('/').unwrap_or(("", path))),
    }
}

/// What is in a folder that is gone is gone. Parents come first, so that one pass is enough.
fn remove_gone(nodes: &mut [Node]) {
    for place in 1..nodes.len() {
        let parent = nodes.get(place).map_or(0, |node| index(node.parent));
        let is_parent_gone = nodes.get(parent).is_some_and(|parent| parent.is_gone);
        if let Some(node) = nodes.get_mut(place) {
            node.is_gone |= is_parent_gone;
        }
    }
}

/// Adds each node to its parent, the last ones first, so that a folder is whole before it is added itself.
fn add_up(nodes: &mut [Node]) {
    for place in (1..nodes.len()).rev() {
        let Some(node) = nodes.get(place).filter(|node| !node.is_gone) else {
            continue;
        };
        let bytes = node.bytes;
        let files = match node.kind {
            Kind::Folder => node.files,
            Kind::Whiteout | Kind::OpaqueWhiteout => 0,
            Kind::File | Kind::Symlink | Kind::HardLink | Kind::Device | Kind::Fifo => 1,
        };
        let parent = index(node.parent);
        if let Some(parent) = nodes.get_mut(parent) {
            parent.bytes = parent.bytes.saturating_add(bytes);
            parent.files = parent.files.saturating_add(files);
        }
    }
}

/// Puts the children of each folder side by side.
fn sort(tree: &mut Tree) {
    let nodes = &tree.nodes;
    let mut order: Vec<u32> = (1..)
        .zip(nodes.iter().skip(1))
        .filter(|(_, node)| !node.is_gone)
        .map(|(place, _)| place)
        .collect();
    let key = |place: &u32| {
        let node = nodes.get(index(*place));
        node.map(|node| (node.parent, node.kind != Kind::Folder, tree.name(node.name)))
    };
    order.sort_unstable_by(|left, right| key(left).cmp(&key(right)));
    let parents: Vec<usize> = order
        .iter()
        .filter_map(|place| nodes.get(index(*place)).map(|node| index(node.parent)))
        .collect();
    for (at, parent) in (0..).zip(parents) {
        if let Some(parent) = tree.nodes.get_mut(parent) {
            if parent.count == 0 {
                parent.first = at;
            }
            parent.count += 1;
        }
    }
    tree.order = order;
}
