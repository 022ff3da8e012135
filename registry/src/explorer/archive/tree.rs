//! The entries of an archive as folders within folders.
//!
//! A node has its name and its parent, not its path, and equal names are kept once: a path of two thousand parts costs
//! two thousand nodes and no more. Nothing here calls itself, however deep the folders are.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::Serialize;
use tar::EntryType;

use super::members::normal;
use super::unreadable::Cut;

/// What an entry is. Whiteouts are by the layer part of the OCI image specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder, with or without an entry of its own.
    Folder,
    /// A name for another path.
    Symlink,
    /// A further name of a file.
    HardLink,
    /// A character or block device.
    Device,
    /// A named pipe.
    Fifo,
    /// Removes what lower layers have under the name after `.wh.`.
    Whiteout,
    /// Removes all that lower layers have in its folder (`.wh..wh..opq`).
    OpaqueWhiteout,
}

impl Kind {
    /// Types that nobody knows are files: POSIX says so.
    pub(super) fn of(of_type: EntryType, is_folder: bool, path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path);
        match of_type {
            _ if is_folder => Self::Folder,
            _ if name == ".wh..wh..opq" => Self::OpaqueWhiteout,
            _ if name.len() > 4 && name.starts_with(".wh.") => Self::Whiteout,
            EntryType::Symlink => Self::Symlink,
            EntryType::Link => Self::HardLink,
            EntryType::Char | EntryType::Block => Self::Device,
            EntryType::Fifo => Self::Fifo,
            _ => Self::File,
        }
    }
}

/// One entry, or one folder that others are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<'t> {
    /// The last part of its path: text from the archive, with whatever characters that has.
    pub name: &'t str,
    /// What it is.
    pub kind: Kind,
    /// Bytes of the file; for a folder, of all files below it.
    pub bytes: u64,
    /// For a folder, how much is below it apart from folders and whiteouts; else 0.
    pub files: u32,
    /// Permissions with set-user-id, set-group-id and sticky; none for a folder without an entry.
    pub mode: Option<u16>,
    /// What a link leads to, as it is written.
    pub target: Option<&'t str>,
}

/// An entry that a search found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Found<'t> {
    /// Its whole path.
    pub path: String,
    /// The entry.
    #[serde(flatten)]
    pub entry: Entry<'t>,
}

/// A folder, and what is directly in it.
#[derive(Debug, Clone, Copy)]
pub struct FolderView<'t> {
    tree: &'t Tree,
    /// The folder itself, with its totals; the top of the archive has no name.
    pub entry: Entry<'t>,
    children: &'t [u32],
}

impl<'t> FolderView<'t> {
    /// What is directly in it: folders first, then by name. Cheap to skip through for a page.
    pub fn children(&self) -> impl ExactSizeIterator<Item = Entry<'t>> + use<'t> {
        let tree = self.tree;
        self.children.iter().map(move |child| tree.view(*child))
    }
}

/// The entries of an archive. The limits of the listing bound its memory.
#[derive(Debug)]
pub struct Tree {
    /// The first is the top, which is its own parent; others come after their parents.
    pub(super) nodes: Vec<Node>,
    pub(super) names: Vec<Arc<str>>,
    /// The children of each folder side by side, in the order they are shown in.
    pub(super) order: Vec<u32>,
    pub(super) cut: Option<Cut>,
    pub(super) left_out: usize,
}

/// An entry as it is kept. Names and targets are places in the list of names.
#[derive(Debug)]
pub(super) struct Node {
    pub parent: u32,
    pub name: u32,
    pub kind: Kind,
    /// Whether a later entry took its place, or that of a folder it is in.
    pub is_gone: bool,
    pub mode: Option<u16>,
    pub bytes: u64,
    pub files: u32,
    pub target: Option<u32>,
    /// Where its children begin in the order, and how many there are.
    pub first: u32,
    pub count: u32,
}

/// The top of the archive.
pub(super) const TOP: u32 = 0;

impl Tree {
    /// Why there is more in the archive than here; none if this is all.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// Entries left out because their path or target is longer than allowed.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// About how many bytes of memory it takes.
    pub fn weight(&self) -> usize {
        let names: usize = self.names.iter().map(|name| name.len() + 48).sum();
        names + self.nodes.len() * (size_of::<Node>() + 4)
    }

    /// Entries here, folders included and the top not.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.order.len()
    }

    /// A folder by its path, or the top by an empty one; none if there is no such folder.
    pub fn folder(&self, path: &str) -> Option<FolderView<'_>> {
        let place = self.find(path)?;
        let entry = self.view(place);
        (entry.kind == Kind::Folder).then(|| FolderView {
            tree: self,
            entry,
            children: self.children(place),
        })
    }

    /// An entry by its path.
    #[cfg(test)]
    pub fn entry(&self, path: &str) -> Option<Entry<'_>> {
        Some(self.view(self.find(path)?))
    }

    /// The first entries, `limit` at most, in whose name the text is, or in whose path if the text has a slash. Large
    /// and small letters of ASCII are alike; an empty text finds nothing.
    pub fn search(&self, text: &str, limit: usize) -> Vec<Found<'_>> {
        let wanted = text.to_ascii_lowercase();
        let mut found = Vec::new();
        if wanted.is_empty() {
            return found;
        }
        // The folders that lead to where the search is, and what is left to look at in each.
        let mut left = vec![self.children(TOP).iter()];
        let mut path = String::new();
        while let Some(siblings) = left.last_mut() {
            if found.len() >= limit {
                break;
            }
            let Some(place) = siblings.next() else {
                left.pop();
                path.truncate(path.rfind('/').unwrap_or(0));
                continue;
            };
            let entry = self.view(*place);
            let folder = path.len();
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(entry.name);
            let within = if wanted.contains('/') { &path } else { entry.name };
            if within.to_ascii_lowercase().contains(&wanted) {
                found.push(Found {
                    path: path.clone(),
                    entry,
                });
            }
            if entry.kind == Kind::Folder {
                left.push(self.children(*place).iter());
            } else {
                path.truncate(folder);
            }
        }
        found
    }

    pub(super) fn name(&self, name: u32) -> &str {
        self.names.get(index(name)).map_or("", |name| name)
    }

    /// Folders before all else, then by name.
    pub(super) fn compare(&self, left: (bool, &str), right: u32) -> Ordering {
        let right = self.view(right);
        (!left.0, left.1).cmp(&(right.kind != Kind::Folder, right.name))
    }

    fn find(&self, path: &str) -> Option<u32> {
        let mut place = TOP;
        for name in normal(path.as_bytes()).split('/').filter(|name| !name.is_empty()) {
            let children = self.children(place);
            let search = |is_folder| {
                children.binary_search_by(|child| self.compare((is_folder, name), *child).reverse())
            };
            let at = search(true).or_else(|_| search(false)).ok()?;
            place = *children.get(at)?;
        }
        Some(place)
    }

    fn children(&self, place: u32) -> &[u32] {
        let children = self.nodes.get(index(place)).and_then(|node| {
            let first = index(node.first);
            self.order.get(first..first.checked_add(index(node.count))?)
        });
        children.unwrap_or_default()
    }

    fn view(&self, place: u32) -> Entry<'_> {
        let Some(node) = self.nodes.get(index(place)) else {
            return Entry::TOP;
        };
        Entry {
            name: self.name(node.name),
            kind: node.kind,
            bytes: node.bytes,
            files: node.files,
            mode: node.mode,
            target: node.target.map(|target| self.name(target)),
        }
    }
}

impl Entry<'_> {
    /// The top of an archive without entries.
    const TOP: Self = Self {
        name: "",
        kind: Kind::Folder,
        bytes: 0,
        files: 0,
        mode: None,
        target: None,
    };
}

/// A place in a list; those here are far shorter than what a `usize` counts.
pub(super) fn index(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Archive, listed};
    use super::*;

    fn names(tree: &Tree, folder: &str) -> Vec<String> {
        let children = tree.folder(folder).unwrap().children();
        children.map(|entry| entry.name.to_owned()).collect()
    }

    #[test]
    fn a_folder_shows_folders_first_and_then_by_name() {
        let archive = Archive::new()
            .file("b", b"")
            .file("a", b"")
            .folder("z")
            .file("c/d", b"");
        assert_eq!(names(&listed(archive), ""), ["c", "z", "a", "b"]);
    }

    #[test]
    fn a_folder_has_the_bytes_and_files_of_all_that_is_below_it() {
        let archive = Archive::new()
            .file("usr/bin/a", b"12345")
            .file("usr/lib/deep/b", b"123")
            .symlink("usr/lib/c", "b")
            .file("usr/.wh.gone", b"")
            .file("etc/d", b"1");
        let tree = listed(archive);
        let usr = tree.folder("usr").unwrap().entry;
        assert_eq!((usr.bytes, usr.files), (8, 3));
        let top = tree.folder("").unwrap().entry;
        assert_eq!((top.bytes, top.files, tree.count()), (9, 4, 10));
    }

    #[test]
    fn a_folder_without_an_entry_is_there_and_has_no_mode() {
        let tree = listed(Archive::new().file("a/b/c", b"").folder("a"));
        assert_eq!(tree.entry("a").unwrap().mode, Some(0o755));
        assert_eq!(tree.entry("a/b").unwrap().mode, None);
        assert_eq!(names(&tree, "a/b"), ["c"]);
    }

    #[test]
    fn the_last_entry_of_a_path_counts() {
        let tree = listed(
            Archive::new()
                .file("a", b"1")
                .file("./a", b"123")
                .file("/a", b"12"),
        );
        assert_eq!((tree.count(), tree.entry("a").unwrap().bytes), (1, 2));
    }

    #[test]
    fn what_takes_the_place_of_a_folder_takes_all_below_it_away() {
        let archive = Archive::new()
            .file("a/b/c", b"123")
            .symlink("a", "x")
            .file("d", b"1");
        let tree = listed(archive);
        assert_eq!(tree.entry("a").unwrap().kind, Kind::Symlink);
        assert_eq!(tree.entry("a/b/c"), None);
        assert_eq!((tree.count(), tree.folder("").unwrap().entry.bytes), (2, 1));
    }

    #[test]
    fn what_comes_below_a_file_makes_it_a_folder() {
        let tree = listed(Archive::new().file("a", b"123").file("a/b", b"1"));
        assert_eq!(tree.folder("a").unwrap().entry.bytes, 1);
    }

    #[test]
    fn a_folder_that_comes_again_keeps_what_is_in_it() {
        let tree = listed(Archive::new().folder("a").file("a/b", b"1").folder("a"));
        assert_eq!(names(&tree, "a"), ["b"]);
    }

    #[test]
    fn a_path_of_two_thousand_folders_is_a_path() {
        let path = "a/".repeat(2000) + "end";
        let tree = listed(Archive::new().long_file(&path, b"12"));
        assert_eq!((tree.count(), tree.entry(&path).unwrap().bytes), (2001, 2));
        assert_eq!(tree.folder("").unwrap().entry.bytes, 2);
        assert_eq!(tree.search("END", 9)[0].path, path);
    }

    #[test]
    fn a_search_finds_names_and_with_a_slash_paths() {
        let archive = Archive::new()
            .file("usr/lib/libssl.so", b"")
            .file("usr/LIB", b"")
            .file("z/lib", b"");
        let tree = listed(archive);
        let found = |text, limit| -> Vec<String> {
            let found = tree.search(text, limit).into_iter();
            found.map(|found| found.path).collect()
        };
        assert_eq!(
            found("lib", 9),
            ["usr/lib", "usr/lib/libssl.so", "usr/LIB", "z/lib"]
        );
        assert_eq!(found("lib", 2), ["usr/lib", "usr/lib/libssl.so"]);
        assert_eq!(found("r/l", 9), ["usr/lib", "usr/lib/libssl.so", "usr/LIB"]);
        assert_eq!(found("", 9), [""; 0]);
    }

    #[test]
    fn what_is_no_folder_has_no_view() {
        let tree = listed(Archive::new().file("a", b""));
        assert!(tree.folder("a").is_none());
        assert!(tree.folder("b").is_none());
        assert!(tree.folder("a/b").is_none());
        assert!(tree.folder("../").is_none());
    }

    #[test]
    fn a_tree_can_go_to_another_thread() {
        fn goes<T: Send + Sync + 'static>() {}
        goes::<Tree>();
    }
}
