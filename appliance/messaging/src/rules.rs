//! What a commit may do: add and remove members, by value, and nothing else. Less than MLS allows on purpose: no
//! proposals by reference, no external commits, no pre-shared keys, no group extensions, no re-initialisation.

use mls_rs::group::GroupContext;
use mls_rs::group::Roster;
use mls_rs::group::proposal::BorrowedProposal;
use mls_rs::mls_rules::{
    CommitDirection, CommitOptions, CommitSource, EncryptionOptions, ProposalBundle, ProposalSource,
};
use mls_rs_core::error::IntoAnyError;

/// Why a commit is refused before MLS looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// A newcomer commits their own entry.
    #[error("external commits are not allowed")]
    ExternalCommit,
    /// A proposal was sent on its own and the commit refers to it.
    #[error("proposals by reference are not allowed")]
    ByReference,
    /// A proposal neither adds nor removes.
    #[error("a commit may only add and remove members")]
    Kind,
}

impl IntoAnyError for RuleError {
    fn into_dyn_error(self) -> Result<Box<dyn std::error::Error + Send + Sync>, Self> {
        Ok(Box::new(self))
    }
}

/// The rules of every conversation.
#[derive(Clone, Debug)]
pub(crate) struct Rules;

impl mls_rs::MlsRules for Rules {
    type Error = RuleError;

    fn filter_proposals(
        &self,
        _: CommitDirection,
        source: CommitSource,
        _: &Roster<'_>,
        _: &GroupContext,
        proposals: ProposalBundle,
    ) -> Result<ProposalBundle, RuleError> {
        if matches!(source, CommitSource::NewMember(_)) {
            return Err(RuleError::ExternalCommit);
        }
        for info in proposals.iter_proposals() {
            if !matches!(info.source, ProposalSource::ByValue) {
                return Err(RuleError::ByReference);
            }
            if !matches!(info.proposal, BorrowedProposal::Add(_) | BorrowedProposal::Remove(_)) {
                return Err(RuleError::Kind);
            }
        }
        Ok(proposals)
    }

    /// Every commit carries new keys of its author. The tree travels outside of the Welcome, encrypted.
    fn commit_options(
        &self,
        _: &Roster<'_>,
        _: &GroupContext,
        _: &ProposalBundle,
    ) -> Result<CommitOptions, RuleError> {
        Ok(CommitOptions::new()
            .with_path_required(true)
            .with_ratchet_tree_extension(false)
            .with_single_welcome_message(true)
            .with_allow_external_commit(false))
    }

    /// Commits are encrypted like messages. Padding hides all but the two leading bits of the length, which includes
    /// a signature of some kilobytes: the sizes of short messages differ in steps of 512 bytes (`standard`) or 1024
    /// bytes (`cnsa`), those of long ones in steps of an eighth to a quarter. It does not hide when, to whom and how
    /// often somebody writes.
    fn encryption_options(&self, _: &Roster<'_>, _: &GroupContext) -> Result<EncryptionOptions, RuleError> {
        Ok(EncryptionOptions::new(true, mls_rs::client_builder::PaddingMode::StepFunction))
    }
}
